"""Launch the comparison with classical restoration; see pag_inverse/cli/compare.py."""

import sys

from pag_inverse.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
