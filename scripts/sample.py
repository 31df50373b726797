"""Launch sampling without a measurement; see pag_inverse/cli/sample.py."""

import sys

from pag_inverse.cli.sample import main

if __name__ == "__main__":
    sys.exit(main())
