"""Launch the measurement of what approximations cost in quality; see pag_inverse/cli/prices.py."""

import sys

from pag_inverse.cli.ablate import main

if __name__ == "__main__":
    sys.exit(main())
