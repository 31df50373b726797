"""What an evaluation restores: its images, and its runs, one for each task, solver and guidance."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pag_inverse.data.datasets import find_images, pick_split
from pag_inverse.restoration.request import GUIDANCE, load_request
from pag_inverse.settings import PRIORS, Names, SolveRequest, load_prior_config, settings, validated
from pag_inverse.settings.reader import FileModel, open_settings, read_model, shipped_names
from pag_inverse.solvers import solver_class
from pag_inverse.storage.places import check_apart, check_writable

SUITES = shipped_names("suites")
METRIC_SIZE = 256  # of the tables, whatever the prior's size
Guidance = Literal["without_pag", "with_pag"]
Side = Annotated[int, Field(ge=7)]  # the window of SSIM


def _different(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("each name must be given once")
    return names


@settings
class EvaluationRequest:
    """Everything that an evaluation is set to.

    `images` says how the folder `root` is laid out (ffhq, imagenet or folder), `split` which of its images count.
    The runs are those of `suite`, which `tasks` and `solvers` narrow; without a suite they are of `tasks` and
    `solvers`, with PAG, or `both` with and without. `solve` holds what every run shares, by the names of
    `SolveRequest`; `rows` names whose rows of the tables count. `metric_size` is the side in pixels of the pictures
    that are compared.
    """

    images: str | None = None
    root: Path | None = None
    split: str | None = None
    suite: str | None = None
    tasks: Names | None = None
    solvers: Names | None = None
    both: bool = False
    prior: str | None = None
    rows: str | None = None
    solve: Mapping[str, Any] = Field(default_factory=dict)
    metric_size: Side | None = None
    output: Path = Path("results/evaluation")
    overwrite: bool = False
    shuffle: bool = False
    log_json: bool = False


@settings
class Suite:
    """The runs of a table: every task with every solver, each with its prior, under each guidance."""

    tasks: Names
    solvers: Names
    priors: Mapping[str, str] = Field(default_factory=dict)
    guidances: tuple[Guidance, ...] = ("without_pag", "with_pag")


class _SuiteFile(FileModel):
    tasks: Annotated[list[str], Field(min_length=1), AfterValidator(_different)]
    solvers: Annotated[list[str], Field(min_length=1), AfterValidator(_different)]
    priors: dict[str, str] = Field(default_factory=dict)
    guidances: Annotated[list[Guidance], Field(min_length=1), AfterValidator(_different)] = Field(
        default=["without_pag", "with_pag"]
    )


@dataclass(frozen=True)
class PlannedRun:
    """A run's folder name and everything its restorations are set to."""

    name: str
    request: SolveRequest


@dataclass(frozen=True)
class Plan:
    """The images, by id and sorted, and the runs; `source` names the images in the settings of each run."""

    images: Mapping[str, Path]
    runs: tuple[PlannedRun, ...]
    source: Mapping[str, object]
    metric_size: int | None


def make_plan(request: EvaluationRequest) -> Plan:
    """Check everything that can be checked without a network; ValueError says what is wrong."""
    if request.images is None or request.root is None:
        raise ValueError("--dataset (ffhq, imagenet or folder) and --root are needed")
    suite = _suite_of(request)
    check_writable(request.output)
    check_apart(request.output, [request.root])
    found = find_images(request.images, request.root, leave_out=request.output)
    images = pick_split(request.images, found, request.split)
    runs = tuple(
        _plan_run(request, suite, *names) for names in itertools.product(suite.tasks, suite.solvers, suite.guidances)
    )
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two runs are named {twice[0]}: give each task (file name) and solver once")
    ids = hashlib.sha256("\n".join(images).encode(errors="surrogateescape")).hexdigest()
    source = {"images": request.images, "split": request.split, "count": len(images), "ids_sha256": ids}
    return Plan(images, runs, source, request.metric_size or (None if request.images == "folder" else METRIC_SIZE))


def load_suite(name: str) -> Suite:
    """One of SUITES, or of a YAML file written like theirs; ValueError for an unknown name and a faulty file."""
    _, source, values = open_settings("suite", name, SUITES)
    file = read_model(_SuiteFile, values, source)
    suite = Suite(tuple(file.tasks), tuple(file.solvers), file.priors, tuple(file.guidances))
    for solver in (*suite.solvers, *suite.priors):
        solver_class(solver)
    return suite


def _suite_of(request: EvaluationRequest) -> Suite:
    """The suite that is named, narrowed to the tasks and solvers that are given; or these alone."""
    if request.suite is not None:
        if request.both:
            raise ValueError("--both does nothing with --suite, which has runs with and without PAG of its own")
        suite = load_suite(request.suite)
        return replace(suite, tasks=request.tasks or suite.tasks, solvers=request.solvers or suite.solvers)
    if not request.tasks or not request.solvers:
        raise ValueError("--suite, or --task and --solver are needed")
    if request.both:
        return Suite(request.tasks, request.solvers)
    return Suite(request.tasks, request.solvers, {}, ("without_pag" if request.solve.get("pag") == 0 else "with_pag",))


def _plan_run(request: EvaluationRequest, suite: Suite, task: str, solver: str, guidance: Guidance) -> PlannedRun:
    """The request of the solve command for one run."""
    prior = request.prior or suite.priors.get(solver) or solver_class(solver).default_prior
    own: dict[str, Any] = {"task": task, "solver": solver, "prior": prior, "dataset": _rows_of(request, prior)}
    if guidance == "without_pag":
        own |= {"pag": 0.0, **dict.fromkeys(GUIDANCE)}
    elif request.solve.get("pag") == 0:
        raise ValueError("--pag 0 is without PAG; the other runs of the suite are with it")
    run = validated(SolveRequest, {**request.solve, **own})
    load_request(run)
    return PlannedRun(f"{Path(task).stem}_{solver}{'_pag' if guidance == 'with_pag' else ''}", run)


def _rows_of(request: EvaluationRequest, prior: str) -> str | None:
    """Whose rows of the tables: named, the embedded prior's own, the data set's, or the prior's."""
    known = load_prior_config(prior) if prior in PRIORS else None
    if request.rows is not None:
        return request.rows
    if known is not None and known.embedded:
        return known.dataset
    if request.images != "folder":
        return request.images
    return known.dataset if known else None
