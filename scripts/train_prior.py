"""Launch the training of a prior; see pag_inverse/cli/train_prior.py."""

import sys

from pag_inverse.cli.train_prior import main

if __name__ == "__main__":
    sys.exit(main())
