"""Measure what each option of a row costs and gains, or sweep PAG: layers, scales, perturbations and solvers.

With --scales, --layers or --generation it is a sweep, which ranks every setting: tables in Markdown, CSV and LaTeX,
a heat map, and curves of quality and sharpness against the scale. Else it is a table of time saved and quality lost, on
the same measurements, for each solver. What was made is not made again, unless weights, rows or pictures have changed;
differences are paired by picture.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pag_inverse.cli.arguments import Parser, add_metrics, path, run
from pag_inverse.settings import PRECISIONS, PRIORS, TASKS, field_names, validated

EXAMPLES = """examples:
  the options of every solver's row:
    python scripts/ablate.py --data photographs --output runs/ablation
    python scripts/ablate.py --data photographs --output runs/ablation --only fast --pictures 16
    python scripts/ablate.py --data photographs --output runs/ablation --table-only
  PAG on a task, at each layer and each pair of layers:
    python scripts/ablate.py --data photographs --output runs/ablation --task super_resolution --solvers diffpir \\
        --layers each pairs --scales 0.5 1 2
  perturbations at the row's layers, two processes:
    torchrun --standalone --nproc-per-node 2 scripts/ablate.py --data photographs --output runs/ablation \\
        --perturbations identity seg blurred_map random_mask:ratio=0.5 --scales 0.5 1 2
  sampling of the embedded prior, held against photographs:
    python scripts/ablate.py --generation --data photographs --output runs/ablation --pictures 16 --layers each
"""
SWEEP = ("generation", "scales", "layers")  # flags that make it a sweep
SWEEPS = ("among", "combinations", "prior", "weights_dir", "steps", "rank_by", "lpips_weights", "inception_weights")


def parser() -> Parser:
    """The flags of ablate."""
    p = Parser("ablate", __doc__, EXAMPLES)
    p.add_argument("--data", type=path, required=True, help="folder of pictures, searched below it too")
    p.add_argument("--output", type=path, required=True, help="folder that gathers the measurements")
    p.add_argument("--solvers", nargs="+", help="by name: all, or of a sweep the task's; of --generation: ddpm, ddim")
    p.add_argument("--tasks", "--task", nargs="+", choices=TASKS, metavar="TASK", help="one, or one for each solver")
    p.add_argument("--only", nargs="+", metavar="WORD", help="settings with one of these words in the name")
    p.add_argument("--perturbations", nargs="+", metavar="NAME[:KEY=VALUE,...]", help="in place of the row's")
    p.add_argument("--pictures", type=int, help="how many, spread evenly over the folder; or are sampled (8)")
    p.add_argument("--first", type=int, help="only so many of them")
    p.add_argument("--size", type=int, help="side cut out of 256 (128); of --generation, by default the prior's")
    p.add_argument("--batch-size", type=int)
    p.add_argument("--precision", choices=PRECISIONS, help="of the networks (bfloat16; of a sweep float32)")
    p.add_argument("--seed", type=int)
    p.add_argument("--device")
    p.add_argument("--table-only", action="store_true", help="print the table of what is there")
    p.add_argument("--reference-scale", type=float, help="step sizes of 1000 steps over the rule's; not of a sweep")
    s = p.add_argument_group("sweep over guidance")
    s.add_argument("--generation", action="store_true", help="sample the prior in place of a task")
    s.add_argument("--scales", type=float, nargs="+", metavar="S", help="of PAG; 0 always is one; by default the row's")
    sets = "sets of layers; each, pairs, triples are all of so many"
    s.add_argument("--layers", nargs="+", metavar="LAYER,...|each|pairs|triples", help=sets)
    s.add_argument("--among", nargs="+", metavar="LAYER", help="layers of each, pairs, triples; by default all")
    s.add_argument("--combinations", nargs="+", metavar="NAME[:KEY=VALUE,...]", help="plain, apg")
    s.add_argument("--prior", help=f"{', '.join(PRIORS)}, or a path; by default the solver's embedded one")
    s.add_argument("--weights-dir", type=path, metavar="DIR", help="published weights (or PAG_INVERSE_WEIGHTS)")
    s.add_argument("--steps", type=int, help="1 to 1000; step sizes are brought to them")
    s.add_argument(
        "--rank-by", choices=("psnr", "ssim", "lpips", "spectrum", "fid"), help="by default psnr, spectrum or fid"
    )
    add_metrics(s)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print the table."""
    from pag_inverse.runtime.processes import exit_status

    return exit_status(run("ablate", parser(), argv, act))


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(args).items()}
    given = {name: value for name, value in given.items() if value is not None}
    if any(given.get(name) for name in SWEEP):
        return _sweep(given)
    for name in SWEEPS:
        if name in given:
            raise ValueError(f"--{name.replace('_', '-')} goes with --scales, --layers or --generation")
    from pag_inverse.experiments.ablation import AblationRequest, ablate

    kept = {name: value for name, value in given.items() if name in field_names(AblationRequest)}
    return ablate(validated(AblationRequest, kept))


def _sweep(given: dict[str, object]) -> int:
    from pag_inverse.experiments.sweep import sweep
    from pag_inverse.experiments.sweep_subjects import SweepRequest
    from pag_inverse.runtime.processes import Processes

    if "reference_scale" in given:
        raise ValueError("--reference-scale does nothing in a sweep over guidance; leave it out")
    return sweep(validated(SweepRequest, given), Processes.of(os.environ))


if __name__ == "__main__":
    sys.exit(main())
