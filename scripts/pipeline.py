"""Launch a pipeline of Stable Diffusion under PAG; see pag_inverse/cli/pipeline.py."""

import sys

from pag_inverse.cli.pipeline import main

if __name__ == "__main__":
    sys.exit(main())
