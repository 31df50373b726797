"""Restore a data set and report on it: one command a table, on any number of processes, resumable at any moment.

Every image is saved when it is done; the same command goes on where it was. Metrics are computed from what was saved,
and report.md, report.html and results.csv are written at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pag_inverse.cli.arguments import Parser, batch_size, fail
from pag_inverse.evaluation.plans import SUITES, make_plan
from pag_inverse.cli.solve import add_approximations, add_checkpoint, add_row, add_speed, add_variants
from pag_inverse.settings.files import DATASETS, PRIORS, SOLVERS, TASKS
from pag_inverse.data.datasets import FIRST_1K, KINDS
from pag_inverse.runtime.processes import Processes

EXAMPLES = """examples:
  Table 8 of the paper, DPS on FFHQ, on eight GPUs:
    torchrun --standalone --nproc-per-node 8 scripts/evaluate.py --suite table8 --dataset ffhq --root ffhq256 \\
        --split first-1k --weights-dir weights --device cuda --batch-size 8 --output runs/table8
  one task with an embedded prior, with and without PAG:
    python scripts/evaluate.py --dataset folder --root photographs --task motion_deblur --solver dps --both \\
        --output runs/motion
  metrics once more from what was saved, and two cells held against each other:
    python scripts/evaluate.py --metrics-only runs/motion --lpips-weights vgg16-397923af.pth
    python scripts/evaluate.py --compare runs/motion/motion_deblur_dps runs/motion/motion_deblur_dps_pag
"""


def parser() -> Parser:
    p = Parser("evaluate", __doc__, EXAMPLES)
    _what(p.add_argument_group("what to evaluate"))
    add_row(p.add_argument_group("in place of the table's row"))
    add_variants(p.add_argument_group("where the published programs and the equations differ"))
    add_speed(p.add_argument_group("speed and memory"))
    add_approximations(p.add_argument_group("faster, at a price in quality (the README has the measured ones)"))
    _run(p.add_argument_group("the run"))
    _metrics(p.add_argument_group("metrics"))
    return p


def _what(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--dataset", choices=KINDS, help="how the folder is laid out")
    p.add_argument("--root", type=Path, help="folder of the data set")
    p.add_argument("--shuffle", action="store_true", help="in an order drawn from the seed; the results are the same")
    p.add_argument("--split", metavar=f"{FIRST_1K}|FILE|START:STOP", help="by default every image")
    p.add_argument("--suite", metavar=f"{'|'.join(SUITES)}|FILE.yaml", help="a whole table, with and without PAG")
    p.add_argument("--task", nargs="+", help=f"{', '.join(TASKS)}, or .yaml files written like theirs")
    p.add_argument("--solver", nargs="+", help=", ".join(SOLVERS))
    p.add_argument("--both", action="store_true", help="with and without PAG, as a suite does")
    p.add_argument("--prior", help=f"{', '.join(PRIORS)}, or a path; by default the suite's, else the embedded one")
    p.add_argument("--rows", choices=DATASETS, help="whose rows of the tables; by default those of prior or data set")
    p.add_argument("--sigma", type=float, help="noise on the [-1, 1] range; by default the task's, 0.05")


def _run(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--samples", type=int, default=1, help="posterior samples of each measurement")
    p.add_argument(
        "--batch-size", type=batch_size, default=1, metavar="N|auto", help="images at once; auto: as many as fit"
    )
    p.add_argument("--size", type=int, help="side of the square picture; by default the prior's")
    p.add_argument("--metric-size", type=int, help="side for the metrics; by default 256 for ffhq and imagenet")
    p.add_argument("--device", default="cpu", help="cpu, cuda (each process its own), cuda:1, mps")
    p.add_argument("--output", type=Path, help="folder; by default results/evaluation")
    p.add_argument("--overwrite", action="store_true", help="start anew")
    p.add_argument("--weights-dir", type=Path, help="folder of published weights (or PAG_INVERSE_WEIGHTS)")
    add_checkpoint(p)
    p.add_argument("--download", action="store_true", help="fetch missing published weights from the hub")
    p.add_argument("--log-json", action="store_true", help="progress as lines of JSON on stderr")


def _metrics(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--metrics-only", type=Path, metavar="DIR", help="score what a run saved once more, and report")
    p.add_argument("--compare", type=Path, nargs=2, metavar=("DIR_A", "DIR_B"), help="paired differences B - A")
    p.add_argument("--lpips-net", choices=("vgg", "alex"), default="vgg")
    p.add_argument("--lpips-weights", type=Path, metavar="FILE", help="torchvision's; by default under TORCH_HOME")
    p.add_argument("--inception-weights", type=Path, metavar="FILE", help="torch-fidelity's, for FID and its kin")


def main(argv: list[str] | None = None) -> int:
    """0: done; 1: images failed, or the disk did; 2: bad input, one line, nothing written; 130: stopped by Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        status = run(args)
    except (ValueError, OSError) as error:
        status = fail("evaluate", error)
    except KeyboardInterrupt:
        print("evaluate: stopped; what is finished is kept, and the same command goes on", file=sys.stderr)
        status = 130
    if "torch.distributed" in sys.modules and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # All is written. Tearing the interpreter down while torch's threads still run aborted one process in ten,
        # and its launcher then called the whole run failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def run(args: argparse.Namespace) -> int:
    if args.metrics_only is not None and args.compare is not None:
        raise ValueError("--metrics-only scores one run, --compare two: give one of them")
    for path in (args.lpips_weights, args.inception_weights):
        if path is not None and not path.is_file():
            raise ValueError(f"{path}: no such file")
    if args.compare is not None:
        from pag_inverse.evaluation.scoring import print_comparison

        return print_comparison(args.compare[0], args.compare[1], args.lpips_net)
    if args.metrics_only is not None:
        from pag_inverse.evaluation.scoring import score_again

        return score_again(args.metrics_only, args)
    plan, processes = make_plan(args), Processes.of(os.environ)
    from pag_inverse.evaluation.run import evaluate  # torch comes in here, after the arguments were found good

    return evaluate(plan, processes, args)


if __name__ == "__main__":
    sys.exit(main())
