"""Launch an evaluation over a data set; see pag_inverse/cli/evaluate.py."""

import sys

from pag_inverse.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
