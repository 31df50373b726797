"""Measure the cost of a solver step: beside the step written the published way, and beside its parts alone.

The published architectures have random weights here. The figures go to the terminal and to a JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pag_inverse.benchmark.case import ARCHITECTURES, EMBEDDED, GUIDANCES
from pag_inverse.cli.arguments import Parser, path, run
from pag_inverse.settings import PRECISIONS, TASKS, validated

EXAMPLES = """examples:
  the embedded priors:
    python scripts/benchmark.py
  the published architectures with random weights, at their own size on a GPU:
    python scripts/benchmark.py --prior ffhq-architecture imagenet-architecture sd15-architecture --device cuda \\
        --batch 1 8 --precision float32 bfloat16
  an iteration of sampling under each guidance (Table 6 of the paper):
    python scripts/benchmark.py --prior sd15-architecture --device cuda --guidances none cfg pag cfg_pag seg
  where the time of a step goes:
    python scripts/benchmark.py --prior pixel --profile
"""


def parser() -> Parser:
    """The flags of benchmark."""
    p = Parser("benchmark", __doc__, EXAMPLES)
    priors = [*EMBEDDED, *ARCHITECTURES]
    p.add_argument("--prior", dest="priors", nargs="+", default=list(EMBEDDED), choices=priors, metavar="PRIOR",
                   help=", ".join(priors))  # fmt: skip
    p.add_argument("--solver", dest="solvers", nargs="+", default=[], help="by default dps and psld")
    p.add_argument("--task", default="gaussian_deblur", choices=TASKS)
    p.add_argument("--size", dest="sizes", type=int, nargs="+", default=[], help="sides of the picture; by default "
                   "the prior's own")  # fmt: skip
    p.add_argument("--batch", dest="batches", type=int, nargs="+", default=[1], help="images at once")
    p.add_argument("--precision", dest="precisions", nargs="+", default=["float32"], choices=PRECISIONS)
    p.add_argument("--steps", type=int, nargs="+", default=[1000], help="of a restoration, for images an hour")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, help="of the processor; by default torch's choice")
    p.add_argument("--compile", action="store_true", help="run networks through torch.compile")
    p.add_argument("--channels-last", action="store_true", help="tensors with channels innermost")
    p.add_argument("--low-memory", action="store_true", help="compute activations again in the backward pass")
    p.add_argument("--no-reference", dest="reference", action="store_false", help="leave out the published way")
    p.add_argument("--guidances", nargs="+", default=[], choices=GUIDANCES, metavar="GUIDANCE", help="measure "
                   f"sampling under each, not solvers: {', '.join(GUIDANCES)}")  # fmt: skip
    p.add_argument("--profile", action="store_true", help="the five largest entries of a step, by torch.profiler")
    p.add_argument("--output", type=path, default=Path("results") / "benchmark.json", help="the JSON")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 2: bad input, or a case that failed, one line on stderr; 130: stopped by Ctrl-C."""
    return run("benchmark", parser(), argv, act)


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    from pag_inverse.benchmark.run import BenchmarkRequest, benchmark  # torch comes in here

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(args).items()}
    return benchmark(validated(BenchmarkRequest, given))


if __name__ == "__main__":
    sys.exit(main())
