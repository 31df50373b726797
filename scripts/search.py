"""Launch the search of step sizes and guidance; see pag_inverse/cli/search.py."""

import sys

from pag_inverse.cli.search import main

if __name__ == "__main__":
    sys.exit(main())
