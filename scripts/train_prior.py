"""Launch the training of a prior; see pag_inverse/cli/train.py."""

import sys

from pag_inverse.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
