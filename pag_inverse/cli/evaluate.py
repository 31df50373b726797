"""Restore a data set and report on it: one command a table, on any number of processes, resumable at any moment.

Every image is saved when it is done; the same command goes on where it was. Metrics are computed from what was saved,
and report.html, report.md, report.tex, results.csv and figures/ are written at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pag_inverse.cli.arguments import (
    Parser,
    add_guidance,
    add_machine,
    add_metrics,
    add_prior,
    add_run,
    check_used,
    path,
    run,
    solve_settings,
    task_help,
)
from pag_inverse.data.datasets import FIRST_1K, KINDS
from pag_inverse.settings.reader import shipped_names

EXAMPLES = """examples:
  Table 8 of the paper, DPS on FFHQ, on eight GPUs:
    torchrun --standalone --nproc-per-node 8 scripts/evaluate.py --suite table8 --dataset ffhq --root ffhq256 \\
        --split first-1k --weights-dir weights --device cuda --batch-size 8 --output runs/table8
  one task with an embedded prior, with and without PAG:
    python scripts/evaluate.py --dataset folder --root photographs --task motion_deblur --solver dps --both \\
        --output runs/motion
  metrics once more from what was saved, and two runs compared:
    python scripts/evaluate.py --metrics-only runs/motion --lpips-weights vgg16-397923af.pth
    python scripts/evaluate.py --compare runs/motion/motion_deblur_dps runs/motion/motion_deblur_dps_pag
"""


# Arguments that the request has under the same names.
SHARED = ("root", "split", "suite", "both", "prior", "rows", "metric_size", "overwrite", "shuffle", "log_json")


# What does not restore, and the other flags that it uses.
MODES = {
    "metrics_only": ("lpips_net", "lpips_weights", "inception_weights", "device"),
    "compare": ("lpips_net",),
}


def parser() -> Parser:
    """The flags of evaluate."""
    p = Parser("evaluate", __doc__, EXAMPLES)
    what = p.add_argument_group("what to evaluate")
    what.add_argument("--dataset", choices=KINDS, help="how the folder is laid out")
    what.add_argument("--root", type=path, help="folder of the data set")
    what.add_argument("--split", metavar=f"{FIRST_1K}|FILE|START:STOP", help="by default every image")
    suites = "|".join(shipped_names("suites"))
    what.add_argument("--suite", metavar=f"{suites}|FILE.yaml", help="a whole table, with and without PAG")
    what.add_argument("--task", nargs="+", help=task_help())
    what.add_argument("--solver", nargs="+", help="solvers by name")
    what.add_argument("--both", action="store_true", help="with and without PAG, as a suite does")
    what.add_argument("--rows", help="whose rows of the tables; by default those of the prior or the data set")
    add_guidance(p.add_argument_group("in place of the tables' rows"))
    add_prior(p.add_argument_group("prior"))
    add_machine(p.add_argument_group("speed and memory"))
    runs = p.add_argument_group("the run")
    add_run(runs)
    runs.add_argument(
        "--shuffle", action="store_true", help="in an order drawn from the seed; the results are the same"
    )
    runs.add_argument("--log-json", action="store_true", help="progress as lines of JSON on stderr")
    metrics = p.add_argument_group("metrics")
    metrics.add_argument("--metric-size", type=int, help="side for the metrics; by default 256 for ffhq and imagenet")
    metrics.add_argument(
        "--metrics-only", type=path, metavar="DIR", help="score what a run saved once more, and report"
    )
    metrics.add_argument("--compare", type=path, nargs=2, metavar=("DIR_A", "DIR_B"), help="paired differences B - A")
    add_metrics(metrics)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: images failed, or the disk did; 2: bad input, one line, nothing written; 130: stopped by Ctrl-C."""
    from pag_inverse.runtime.processes import exit_status

    return exit_status(run("evaluate", parser(), argv, act))


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    if args.set and "help" in args.set:
        from pag_inverse.restoration.run import list_options

        return list_options()
    for mode, used in MODES.items():
        if getattr(args, mode) is not None:
            check_used(args, parser(), mode, used)
    from pag_inverse.runtime.processes import Processes

    processes = Processes.of(os.environ)
    if processes.rank and (args.compare or args.metrics_only):
        return 0  # the first process does it
    if args.compare is not None:
        from pag_inverse.evaluation.scoring import print_comparison

        return print_comparison(args.compare[0], args.compare[1], args.lpips_net)
    from pag_inverse.evaluation.scoring import score_again
    from pag_inverse.metrics.networks import MetricsRequest

    metrics = MetricsRequest(args.lpips_net, args.lpips_weights, args.inception_weights)
    if args.metrics_only is not None:
        return score_again(args.metrics_only, metrics, args.device)
    from pag_inverse.evaluation.run import evaluate

    return evaluate(request_of(args), metrics, processes)


def request_of(args: argparse.Namespace) -> Any:
    """The arguments as a validated request."""
    from pag_inverse.evaluation.plans import EvaluationRequest

    own = ("task", "solver", "prior", "dataset")
    return EvaluationRequest(
        images=args.dataset,
        tasks=args.task and tuple(args.task),
        solvers=args.solver and tuple(args.solver),
        solve={name: value for name, value in solve_settings(args).items() if name not in own},
        output=args.output or Path("results") / "evaluation",
        **{name: getattr(args, name) for name in SHARED},
    )


if __name__ == "__main__":
    sys.exit(main())
