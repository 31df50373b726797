"""Compare solvers with the embedded priors and with classical restoration: every task, with PAG and without.

Beside them stands what bounds them: the autoencoder's round trip, and one step of the pixel prior as a denoiser.
Classical methods are tuned on training pictures first. One sample of every method comes before the further ones, and
what takes few passes of the networks comes first: --page-only writes the page of what is there. A restoration is made
once, unless what it is made of has changed: prior, row or picture. The pages comparison.html and comparison.md are
written anew each time. torchrun shares the restorations between several processes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pag_inverse.cli.arguments import Parser, path, run
from pag_inverse.settings import PAPER_TASKS, PRECISIONS, validated

EXAMPLES = """examples:
  python scripts/compare.py --data test_pictures --training training_pictures --output runs/comparison
  python scripts/compare.py --data faces --training photographs --output runs/faces --samples 8 --tasks gaussian_deblur
  torchrun --standalone --nproc-per-node 2 scripts/compare.py --data faces --training photographs --output runs/faces
"""


def parser() -> Parser:
    """The flags of compare."""
    p = Parser("compare", __doc__, EXAMPLES)
    p.add_argument("--data", type=path, nargs="+", required=True, metavar="FILE|DIR", help="pictures to restore")
    p.add_argument("--training", type=path, required=True, help="folder of pictures to tune classical methods on")
    p.add_argument("--output", type=path, required=True)
    p.add_argument("--tasks", nargs="+", choices=PAPER_TASKS, help="by default all")
    p.add_argument("--solvers", nargs="+", help="solvers by name; by default all")
    p.add_argument("--samples", type=int, default=4, help="of the methods in --many")
    p.add_argument("--many", nargs="+", metavar="SOLVER[_pag]", help="methods with several samples; by default all")
    p.add_argument("--reference", metavar="SOLVER[_pag]", help="the method that all others are compared with")
    p.add_argument("--perturbation", metavar="NAME[:KEY=VALUE,...]", help="of PAG, in place of the rows'")
    p.add_argument("--sigmas", type=float, nargs="*", help="of the denoising, on [-1, 1]; by default 0.1 to 2")
    p.add_argument("--tuning-pictures", type=int, default=6)
    p.add_argument("--size", type=int, default=256, help="a smaller side is cut out of 256")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the networks")
    p.add_argument("--device", default="cpu")
    p.add_argument("--lpips-net", choices=("vgg", "alex"), default="vgg")
    p.add_argument("--lpips-weights", type=path, metavar="FILE", help="torchvision's; by default TORCH_HOME's")
    p.add_argument("--page-only", action="store_true", help="write the page of what is there")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Restore what is missing, then write the page."""
    from pag_inverse.runtime.processes import exit_status

    return exit_status(run("compare", parser(), argv, act))


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    from pag_inverse.experiments.comparison import ComparisonRequest, compare
    from pag_inverse.runtime.processes import Processes

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(args).items()}
    request = validated(ComparisonRequest, {name: value for name, value in given.items() if value is not None})
    return compare(request, Processes.of(os.environ))


if __name__ == "__main__":
    sys.exit(main())
