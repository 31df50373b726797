"""Launch the ablation of a row's options; see pag_inverse/cli/ablate.py."""

import sys

from pag_inverse.cli.ablate import main

if __name__ == "__main__":
    sys.exit(main())
