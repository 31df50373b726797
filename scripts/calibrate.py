"""Launch the calibration of solvers; see pag_inverse/cli/calibrate.py."""

import sys

from pag_inverse.cli.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
