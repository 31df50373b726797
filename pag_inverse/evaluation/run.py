"""One evaluation: check together, restore what is missing, score, report."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pag_inverse.data.images import prepare, read_image
from pag_inverse.evaluation.plans import EvaluationRequest, Plan, make_plan
from pag_inverse.evaluation.results import write_report
from pag_inverse.evaluation.runs import EvaluationRun, LoadedPrior, check_runs, in_order
from pag_inverse.evaluation.saving import reset_peak_memory, save
from pag_inverse.evaluation.scoring import score_part, tell_failures
from pag_inverse.metrics.networks import MetricNetworks, MetricsRequest
from pag_inverse.restoration.batches import choose_batch_size, restore_all
from pag_inverse.restoration.recipe import Recipe
from pag_inverse.restoration.subjects import Subject, make_subject
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.runtime.processes import Processes
from pag_inverse.runtime.progress import Progress
from pag_inverse.storage.entries import Survey
from pag_inverse.storage.files import file_sha256
from pag_inverse.storage.run_store import RunStore
from pag_inverse.storage.together import agree_on_settings, open_all, tell_surveys


def evaluate(request: EvaluationRequest, metrics: MetricsRequest, processes: Processes) -> int:
    """Restore what is missing, score it, and write the report; 1 where images failed or the disk did.

    Every process restores its own images of every run; together they check first and score last.
    """
    processes.join()
    try:
        processes.agreed(metrics.check)
        plan = processes.agreed(lambda: make_plan(request))
        return _Evaluation(request, metrics, plan, processes).run()
    finally:
        processes.leave()


class _Evaluation:
    """What the phases of an evaluation share."""

    def __init__(self, request: EvaluationRequest, metrics: MetricsRequest, plan: Plan, processes: Processes) -> None:
        self.request, self.metrics, self.plan, self.processes = request, metrics, plan, processes
        self.prior = LoadedPrior()
        self.mine = processes.deal(order_of(plan.images, request.shuffle, int(request.solve.get("seed", 0))))
        self.inputs: Mapping[str, str] = {}
        self.runs: list[EvaluationRun] = []
        self.done = 0

    @property
    def total(self) -> int:
        """The images of all runs of all processes."""
        return len(self.runs) * len(self.plan.images)

    def run(self) -> int:
        self.inputs = self.processes.agreed(self.hashes)
        parts = self.processes.gather(self.inputs)
        self.processes.agreed(lambda: self.check({i: digest for part in parts for i, digest in part.items()}))
        agree_on_settings(self.processes, [run.store for run in self.runs], {"shuffle": self.request.shuffle})
        with ExitStack() as opened:
            stores = [run.store for run in self.runs]
            self.processes.agreed(lambda: open_all(opened, stores, self.request.overwrite))
            left = self.processes.agreed(self.survey)
            self.done = tell_surveys(self.processes, left, self.total)
            self.processes.agreed(lambda: self.restore(left))
            return 1 if self.report() else 0

    def hashes(self) -> Mapping[str, str]:
        """The SHA-256 of this process's images."""
        return {image_id: file_sha256(self.plan.images[image_id]) or "" for image_id in self.mine}

    def check(self, inputs: Mapping[str, str]) -> None:
        """Load the priors and make sure that every run can run here; nothing is written.

        `inputs` holds the SHA-256 of the images of all processes.
        """
        root = self.request.output.absolute()
        self.runs = check_runs(self.plan, root, self.processes, inputs, self.request.overwrite, self.prior)

    def survey(self) -> list[Survey]:
        """Where this process's images of every run stand."""
        return [run.store.survey(self.mine, self.inputs) for run in self.runs]

    def restore(self, surveys: list[Survey]) -> None:
        """Each process restores its own images of every run, without a word to the others."""
        mine = sum(len(survey.pending) for survey in surveys)
        folders = [run.store.folder for run in self.runs]
        progress = Progress(folders, mine, self.total, self.done, self.processes, self.request.log_json)
        try:
            for run, survey in zip(self.runs, surveys, strict=True):
                if survey.pending:
                    self.restore_run(run, survey.pending, progress)
        finally:
            progress.close()

    def restore_run(self, run: EvaluationRun, ids: list[str], progress: Progress) -> None:
        """Batch by batch; what an image needs is held only until it is saved."""
        recipe, device = run.recipe(self.prior), run.request.device
        if device == "cpu":
            settle_freed_memory(recipe.size**2, run.request.low_memory)
        reset_peak_memory(device)
        example = make_subject("example", "", np.zeros((3, recipe.size, recipe.size), np.float32))
        size = choose_batch_size(recipe, example, len(ids) * run.request.samples, self.processes.world)
        if run.request.batch_size is None:
            print(f"{run.name}: batch size {size}", file=sys.stderr)
        subjects = self.subjects(run, recipe, ids, progress)
        for subject, kept in restore_all(recipe, subjects, size, progress.step):
            save(run, recipe, subject, kept)
            progress.image(run.name, subject.name)

    def subjects(self, run: EvaluationRun, recipe: Recipe, ids: list[str], progress: Progress) -> Iterator[Subject]:
        """Every image that can be read; the others are recorded as failed, to be tried again."""
        for image_id in ids:
            path = self.plan.images[image_id]
            try:
                image = prepare(read_image(path), recipe.size, run.request.resize)
                _check_unchanged(path, self.inputs[image_id])
            except ValueError as error:
                run.store.finish(image_id, {"error": str(error), "retry": True})
                progress.image(run.name, image_id)
                continue
            yield _subject(image_id, path, image, self.inputs[image_id])

    def report(self) -> bool:
        """Score, report; whether images failed."""
        networks = self.processes.agreed(lambda: self.metrics.load(self.runs[0].request.device))
        stores = [run.store for run in in_order(self.runs, self.plan)]
        rank, world = self.processes.rank, self.processes.world
        self.processes.agreed(lambda: score_part(stores, networks, rank, world))
        self.processes.agreed(lambda: self.write(stores, networks))
        return any(store.failures() for store in stores)

    def write(self, stores: list[RunStore], networks: MetricNetworks) -> None:
        """The first process tells what failed, and writes the report."""
        if self.processes.rank == 0:
            tell_failures(stores)
            print(f"written to {write_report(stores, networks)}")


def order_of(images: Iterable[str], shuffle: bool, seed: int) -> list[str]:
    """The order of the work: sorted by id, or drawn, so that a part of a run is a fair sample of the whole."""
    ids = list(images)
    return [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))] if shuffle else ids


def _check_unchanged(path: Path, digest: str) -> None:
    """ValueError where a file is no longer the one that was checked: its result would be told as the other's."""
    if file_sha256(path) != digest:
        raise ValueError(f"{path} has changed since the run began")


def _subject(image_id: str, path: Path, image: object, digest: str) -> Subject:
    """A subject that is known by the content of its file."""
    made = make_subject(image_id, str(path), image)
    return Subject(made.name, made.source, made.image, digest)
