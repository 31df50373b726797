"""Launch the restoration of pictures; see pag_inverse/cli/solve.py."""

import sys

from pag_inverse.cli.solve import main

if __name__ == "__main__":
    sys.exit(main())
