"""The runs of an evaluation, checked: a task, a solver and a guidance that can run here, and where each lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pag_inverse.evaluation.entries import KIND, EvaluationEntry
from pag_inverse.evaluation.plans import Plan, PlannedRun
from pag_inverse.priors import Prior
from pag_inverse.restoration.recipe import Recipe, make_recipe, request_prior
from pag_inverse.restoration.request import prior_name
from pag_inverse.restoration.subjects import make_subject
from pag_inverse.runtime.processes import Processes
from pag_inverse.settings import SolveRequest
from pag_inverse.storage.finding import check_root
from pag_inverse.storage.run_store import REMEDY, RunStore

# What decides a measurement beside its image.
MEASURED_WITH = ("operator", "operator_settings", "noise", "sigma", "noise_in_hole", "size", "resize", "seed")


class LoadedPrior:
    """The prior of the runs that are at work; the one before is let go, so that a run's memory is its own."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._prior: Prior | None = None

    def of(self, request: SolveRequest) -> Prior:
        """The prior that a request names, loaded if it is not there."""
        if self._prior is None or self._name != prior_name(request):
            self._prior = None
            self._name, self._prior = prior_name(request), request_prior(request)
        return self._prior


@dataclass(frozen=True)
class EvaluationRun:
    """A run that was checked. `truths` and `measurements` are folders below the root, shared by its runs."""

    request: SolveRequest
    store: RunStore
    metric_size: int
    truths: str
    measurements: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.store.name

    def names(self, images: Iterable[str]) -> Iterator[str]:
        """The longest names that it gives its files."""
        yield from (f"{self.name}/features/{image_id}.{'0' * 16}.npz" for image_id in images)

    def recipe(self, prior: LoadedPrior) -> Recipe:
        """Its objects, with the step sizes of its pictures."""
        return _recipe(self.request, prior)


def check_runs(
    plan: Plan, root: Path, processes: Processes, inputs: Mapping[str, str], overwrite: bool, prior: LoadedPrior
) -> list[EvaluationRun]:
    """Make sure that every run can start or go on here; nothing is written.

    `inputs` holds the SHA-256 of every image. Runs come prior by prior, each of which is loaded once.
    """
    check_root(root)
    data = _digest(*sorted(inputs.items()))
    runs = []
    for planned in sorted(plan.runs, key=lambda planned: prior_name(planned.request)):
        run = _check_run(plan, planned, root, processes, data, prior)
        run.store.check(overwrite, inputs, run.names(plan.images))
        if not overwrite:
            _check_images(run.store, plan)
        runs.append(run)
    return runs


def in_order(runs: Sequence[EvaluationRun], plan: Plan) -> list[EvaluationRun]:
    """The runs in the order of the plan."""
    names = [planned.name for planned in plan.runs]
    return sorted(runs, key=lambda run: names.index(run.name))


def _check_images(store: RunStore, plan: Plan) -> None:
    """ValueError where a run has images that are no longer asked for: its report would be of other images."""
    gone = [image_id for image_id in store.entries() if image_id not in plan.images]
    if gone:
        raise ValueError(
            f"{store.folder} holds a run of other inputs: {len(gone)} of its images are not in the data set or split "
            f"({', '.join(gone[:3])}); put them back, {REMEDY}"
        )


def _check_run(
    plan: Plan, planned: PlannedRun, root: Path, processes: Processes, data: str, prior: LoadedPrior
) -> EvaluationRun:
    device = f"cuda:{processes.local}" if planned.request.device == "cuda" else planned.request.device
    request = replace(planned.request, device=device)
    recipe = _recipe(request, prior)
    metric_size = min(plan.metric_size or recipe.size, recipe.size)
    settings = {**recipe.describe(), **plan.source, "metric_size": metric_size}
    store = RunStore(
        root / planned.name,
        kind=KIND,
        settings=settings,
        entry=EvaluationEntry,
        told=("task", "prior", *plan.source),
        rank=processes.rank,
        world=processes.world,
        root=root,
    )
    measured_with = [store.settings[name] for name in MEASURED_WITH]
    return EvaluationRun(
        request,
        store,
        metric_size,
        truths=f"truths/{_digest(data, metric_size, recipe.size, request.resize)}",
        measurements=f"measurements/{recipe.task.name}/{_digest(data, *measured_with)}",
    )


def _recipe(request: SolveRequest, prior: LoadedPrior) -> Recipe:
    """The recipe for pictures of its size, found good for prior and solver."""
    recipe = make_recipe(request, prior.of(request))
    grey = np.zeros((3, recipe.size, recipe.size), np.float32)
    return recipe.for_example(make_subject("example", "", grey))


def _digest(*keys: Any) -> str:
    return hashlib.sha256(json.dumps([str(key) for key in keys]).encode()).hexdigest()[:8]
