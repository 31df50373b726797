"""Search the row of a prior: try every setting of a grid of a solver's options and of PAG on training pictures.

Each setting restores the same measurements; a setting that was tried is not tried again. Use training pictures only:
a row found on test pictures flatters itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pag_inverse.cli.arguments import Parser, path, run, task_help
from pag_inverse.settings import PRECISIONS, PRIORS, validated

EXAMPLES = """examples:
  python scripts/search.py --task gaussian_deblur --solver dps --data photographs --output runs/search --grid eta=5,10
  python scripts/search.py --task motion_deblur --solver psld --data photographs --output runs/search \\
      --grid eta=4,8 gamma=0.1*eta,0.3*eta --pag 0 2 5 --layers mid_block.attentions.0 --steps 60
"""


def parser() -> Parser:
    """The flags of search."""
    p = Parser("search", __doc__, EXAMPLES)
    p.add_argument("--task", required=True, help=task_help())
    p.add_argument("--solver", required=True, help="a solver by name")
    p.add_argument("--prior", help=f"{', '.join(PRIORS)}, or a path; by default the solver's embedded one")
    p.add_argument("--data", type=path, required=True, help="folder of training pictures, searched below it too")
    p.add_argument("--output", type=path, required=True, help="folder that gathers what was tried")
    p.add_argument("--grid", nargs="+", default=[], metavar="KEY=V1,V2", help="options of the solver; F*KEY too")
    p.add_argument("--pag", type=float, nargs="+", default=[0.0], metavar="S", help="scales of PAG")
    p.add_argument("--layers", nargs="+", default=[], metavar="LAYER,...", help="each a set of layers to perturb")
    p.add_argument("--steps", type=int, nargs="+", default=[100])
    p.add_argument("--pictures", type=int, default=4, help="how many, spread evenly over the folder")
    p.add_argument("--samples", type=int, default=2, help="posterior samples of each measurement")
    p.add_argument("--size", type=int, default=128, help="side cut out of 256; step sizes are given for 256")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the networks")
    p.add_argument("--device", default="cpu")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Try what was not tried yet, then print the table."""
    return run("search", parser(), argv, act)


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    from pag_inverse.experiments.search import SearchRequest, read_grid, search

    given = vars(args) | {
        "grid": read_grid(args.grid),
        "layers": tuple(tuple(layers.split(",")) for layers in args.layers),
        "steps": tuple(args.steps),
    }
    return search(validated(SearchRequest, {"scales": tuple(given.pop("pag")), **given}))


if __name__ == "__main__":
    sys.exit(main())
