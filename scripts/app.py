"""Launch the page to try restorations in a browser; see pag_inverse/cli/app.py."""

import sys

from pag_inverse.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
