"""From parsed arguments to what an evaluation restores: its images and its cells, one a task, solver and guidance."""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pag_inverse.cli import solve
from pag_inverse.restoration.request import Request, resolve
from pag_inverse.settings.files import EMBEDDED_PRIORS, PRIORS, SOLVERS, TASKS, load_prior_config
from pag_inverse.data.datasets import find_images, pick_split
from pag_inverse.settings.reader import parse_yaml

METRIC_SIZE = 256  # of the tables, whatever the prior's size
GUIDANCES = ("without_pag", "with_pag")


@dataclass(frozen=True)
class Suite:
    """The cells of a table: every task with every solver, each with its prior, under each guidance."""

    tasks: tuple[str, ...]
    solvers: tuple[str, ...]
    priors: Mapping[str, str]
    guidances: tuple[str, ...] = GUIDANCES


SUITES = {
    "table4": Suite(TASKS, ("psld",), {"psld": "sd15"}),
    "table8": Suite(TASKS, ("dps",), {"dps": "ffhq"}),
    "imagenet": Suite(TASKS, ("dps", "psld"), {"dps": "imagenet", "psld": "sd15"}),
}


@dataclass(frozen=True)
class CellPlan:
    """A cell's folder name and everything its restorations are set to."""

    name: str
    request: Request


@dataclass(frozen=True)
class Plan:
    """The images, by id and sorted, and the cells; `source` is what names the images in the settings."""

    images: dict[str, Path]
    cells: tuple[CellPlan, ...]
    output: Path
    kind: str
    source: Mapping[str, object]
    metric_size: int | None


def make_plan(args: argparse.Namespace) -> Plan:
    """Check everything that can be checked without torch; ValueError says what is wrong."""
    if args.dataset is None or args.root is None:
        raise ValueError("--dataset (ffhq, imagenet or folder) and --root are needed")
    if args.metric_size is not None and args.metric_size < 7:
        raise ValueError(f"--metric-size is {args.metric_size}; it must be at least 7")
    if args.size is not None and args.size < 7:
        raise ValueError(f"--size is {args.size}; it must be at least 7")
    suite = read_suite(args)
    images = pick_split(args.dataset, find_images(args.dataset, args.root), args.split)
    output = args.output or Path("results") / "evaluation"
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give another --output")
    cells = tuple(
        make_cell(args, suite, output, *names)
        for names in itertools.product(suite.tasks, suite.solvers, suite.guidances)
    )
    ids = hashlib.sha256("\n".join(images).encode()).hexdigest()
    source = {"images": args.dataset, "split": args.split, "count": len(images), "ids_sha256": ids}
    metric_size = args.metric_size or (None if args.dataset == "folder" else METRIC_SIZE)
    return Plan(images, cells, output, args.dataset, source, metric_size)


def read_suite(args: argparse.Namespace) -> Suite:
    """The suite that is named, or the one of --task and --solver; their values narrow a suite."""
    if args.suite is None:
        if not args.task or not args.solver:
            raise ValueError(f"--suite, or --task ({', '.join(TASKS)}) and --solver ({', '.join(SOLVERS)}) are needed")
        guidances = GUIDANCES if args.both else ("without_pag",) if args.pag == 0 else ("with_pag",)
        return Suite(tuple(args.task), tuple(args.solver), EMBEDDED_PRIORS, guidances)
    suite = SUITES[args.suite] if args.suite in SUITES else _own_suite(args.suite)
    return replace(suite, tasks=tuple(args.task or suite.tasks), solvers=tuple(args.solver or suite.solvers))


def _own_suite(name: str) -> Suite:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ValueError(f"unknown suite {name!r}; there are {', '.join(SUITES)}, or the path of a .yaml file")
    section = parse_yaml(path.read_text(encoding="utf-8"), name)
    section.expect(required=("tasks", "solvers"), optional=("priors", "guidances"))
    priors = section.section("priors") if "priors" in section else None
    if priors:
        priors.expect(required=(), optional=SOLVERS)
    own = {solver: priors.text(solver) for solver in SOLVERS if priors and solver in priors}
    guidances = section.texts("guidances") if "guidances" in section else GUIDANCES
    if not set(guidances) <= set(GUIDANCES):
        raise ValueError(f"{section.where('guidances')} is {list(guidances)}; allowed: {', '.join(GUIDANCES)}")
    return Suite(section.texts("tasks"), section.texts("solvers"), {**EMBEDDED_PRIORS, **own}, guidances)


def make_cell(args: argparse.Namespace, suite: Suite, output: Path, task: str, solver: str, guidance: str) -> CellPlan:
    """The request of the solve command for one cell."""
    given = {k: v for k, v in vars(args).items() if k in vars(solve.parser().parse_args([]))}
    prior = args.prior or suite.priors.get(solver)
    own = {
        "task": task,
        "solver": solver,
        "prior": prior,
        "dataset": _rows(args, prior),
        "pag": 0.0 if guidance == "without_pag" else args.pag,
    }
    if guidance == "with_pag" and args.pag == 0:
        raise ValueError("--pag 0 is without PAG; the other cells of the suite are with it")
    if guidance == "without_pag":
        own["layers"] = None
    name = f"{Path(task).stem}_{solver}{'_pag' if guidance == 'with_pag' else ''}"
    base = vars(solve.parser().parse_args([]))
    request = resolve(argparse.Namespace(**{**base, **given, **own, "output": output / name}))
    return CellPlan(name, request)


def _rows(args: argparse.Namespace, prior: str | None) -> str | None:
    if args.rows is not None:
        return str(args.rows)
    if prior in EMBEDDED_PRIORS.values():
        return None  # their own
    if args.dataset != "folder":
        return str(args.dataset)
    return load_prior_config(prior).dataset if prior in PRIORS else None
