"""Measure what each option of a row costs and gains: time saved, quality lost, on the same measurements.

A restoration that was measured is not measured again, unless the weights, the row or the picture have changed. The
table is of what is there; differences are paired by picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pag_inverse.cli.arguments import Parser, path, run
from pag_inverse.settings import PRECISIONS, TASKS, validated

EXAMPLES = """examples:
  python scripts/ablate.py --data photographs --output runs/ablation
  python scripts/ablate.py --data photographs --output runs/ablation --only fast 1000 --pictures 16
  python scripts/ablate.py --data photographs --output runs/ablation --table-only
  perturbations beside the row's own:
    python scripts/ablate.py --data photographs --output runs/ablation --solvers ldps \\
        --perturbations seg skip token_shuffle random_mask:ratio=0.5 --only row perturbation
"""


def parser() -> Parser:
    """The flags of ablate."""
    p = Parser("ablate", __doc__, EXAMPLES)
    p.add_argument("--data", type=path, required=True, help="folder of pictures, searched below it too")
    p.add_argument("--output", type=path, required=True, help="folder that gathers the measurements")
    p.add_argument("--solvers", nargs="+", help="solvers by name; by default all")
    p.add_argument("--tasks", nargs="+", choices=TASKS, default=["gaussian_deblur"], help="one, or one for each solver")
    p.add_argument("--reference-scale", type=float, default=1.0, help="step sizes of 1000 steps over the rule's")
    p.add_argument("--only", nargs="+", default=[], metavar="WORD", help="settings with one of these words in the name")
    p.add_argument(
        "--perturbations", nargs="+", default=[], metavar="NAME[:KEY=VALUE,...]", help="in place of the row's"
    )
    p.add_argument("--pictures", type=int, default=8, help="how many, spread evenly over the folder")
    p.add_argument("--first", type=int, help="only so many of them")
    p.add_argument("--size", type=int, default=128, help="side cut out of 256; step sizes are brought to it")
    p.add_argument("--batch-size", type=int, default=2)
    p.add_argument("--precision", choices=PRECISIONS, default="bfloat16", help="of the networks")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument("--table-only", action="store_true", help="print the table of what is there")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print the table."""
    return run("ablate", parser(), argv, act)


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    from pag_inverse.experiments.ablation import AblationRequest, ablate

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(args).items()}
    return ablate(validated(AblationRequest, {name: value for name, value in given.items() if value is not None}))


if __name__ == "__main__":
    sys.exit(main())
