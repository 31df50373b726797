"""Measure the cost of a step; see pag_inverse/cli/benchmark.py."""

import sys

from pag_inverse.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
