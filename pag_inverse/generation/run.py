"""The run of the sample command: check together, sample what is missing, score, write grids and tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tqdm import tqdm

from pag_inverse.data.images import png_bytes, to_uint8
from pag_inverse.generation.chain import run_sampler
from pag_inverse.generation.plans import SamplePlan, SampleRequest, make_plan
from pag_inverse.generation.recipe import (
    TOLD,
    Item,
    LoadedPriors,
    SampleRecipe,
    classes_of,
    describe,
    further_guidance,
    make_items,
    make_sample_recipe,
)
from pag_inverse.generation.results import write_results
from pag_inverse.generation.samplers import SampleStep
from pag_inverse.generation.scoring import Reference, score_run
from pag_inverse.generation.writing import SampleEntry, sampled, write_grid, write_npz
from pag_inverse.guidance import Explainer
from pag_inverse.metrics.networks import MetricNetworks, MetricsRequest
from pag_inverse.reports.explanation import Explanation, recorded_steps
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.runtime.batching import largest_batch, split_where_full
from pag_inverse.runtime.processes import Processes
from pag_inverse.runtime.progress import Progress
from pag_inverse.runtime.streams import stream_seed
from pag_inverse.storage.entries import Survey
from pag_inverse.storage.finding import check_root
from pag_inverse.storage.run_store import RunStore
from pag_inverse.storage.together import agree_on_settings, open_all, tell_surveys

KIND = "sample"


@dataclass(frozen=True)
class SampleRun:
    """A run that was checked: its row's name, its store, and its pictures."""

    name: str
    store: RunStore
    items: Sequence[Item]

    @property
    def names(self) -> list[str]:
        """The names of its pictures."""
        return [item.name for item in self.items]


def sample_run(request: SampleRequest, metrics: MetricsRequest, processes: Processes) -> int:
    """Sample what is missing of every row, score it, write grids and a table; 1 where pictures failed.

    Every process samples its own pictures of every run; together they check first and score last.
    """
    processes.join()
    try:
        processes.agreed(metrics.check)
        plan = processes.agreed(lambda: make_plan(request))
        reference = processes.agreed(lambda: Reference.of(request.reference, plan.output))
        return _Sampling(request, metrics, plan, reference, processes).run()
    finally:
        processes.leave()


class _Sampling:
    """What the phases of a command share."""

    def __init__(
        self,
        request: SampleRequest,
        metrics: MetricsRequest,
        plan: SamplePlan,
        reference: Reference | None,
        processes: Processes,
    ) -> None:
        self.request, self.metrics, self.plan, self.processes = request, metrics, plan, processes
        self.reference = reference
        self.device = f"cuda:{processes.local}" if request.device == "cuda" else request.device
        self.priors = LoadedPriors(request, self.device)
        self.runs: list[SampleRun] = []

    def run(self) -> int:
        self.processes.agreed(self.check)
        stores = [run.store for run in self.runs]
        agree_on_settings(self.processes, stores, {})
        with ExitStack() as opened:
            self.processes.agreed(lambda: open_all(opened, stores, self.request.overwrite))
            surveys = self.processes.agreed(self.survey)
            total = sum(len(run.items) for run in self.runs)
            done = tell_surveys(self.processes, surveys, total)
            self.processes.agreed(lambda: self.sample(surveys, total, done))
            return 1 if self.report() else 0

    def check(self) -> None:
        """Load the priors and make sure that every run can start or go on here; nothing is written."""
        if self.plan.folders:
            check_root(self.plan.output.absolute())
        for name in self.plan.rows:
            recipe = self.recipe(name)
            prompts = self.plan.prompts if recipe.row.prompts else ()
            classes = self.request.classes
            if self.plan.folders and not classes_of(recipe.prior):
                classes = None  # those of other rows
            items = make_items(recipe.prior, self.request.count, self.request.seed, prompts, classes)
            run = SampleRun(name, self.store(name, recipe), items)
            run.store.check(self.request.overwrite, None, (f"samples/{item.name}.png" for item in items))
            self.runs.append(run)

    def recipe(self, name: str) -> SampleRecipe:
        """The objects of a row."""
        row = self.plan.rows[name]
        return make_sample_recipe(row, *self.priors.of(row))

    def store(self, name: str, recipe: SampleRecipe) -> RunStore:
        """Where a row's pictures go."""
        root = self.plan.output.absolute()
        return RunStore(
            root / name if self.plan.folders else root,
            kind=KIND,
            settings=describe(recipe, self.request, self.plan.prompts),
            entry=SampleEntry,
            told=TOLD,
            rank=self.processes.rank,
            world=self.processes.world,
            root=root,
            item="sample",
        )

    def survey(self) -> list[Survey]:
        """Where this process's pictures of every run stand."""
        return [run.store.survey(self.processes.deal(run.names)) for run in self.runs]

    def sample(self, surveys: Sequence[Survey], total: int, done: int) -> None:
        """Each process samples its own pictures of every run, without a word to the others."""
        mine = sum(len(survey.pending) for survey in surveys)
        folders = [run.store.folder for run in self.runs]
        progress = Progress(folders, mine, total, done, self.processes, self.request.log_json)
        try:
            for run, survey in zip(self.runs, surveys, strict=True):
                if survey.pending:
                    self.sample_items(run, survey.pending, progress)
        finally:
            progress.close()

    def sample_items(self, run: SampleRun, pending: Sequence[str], progress: Progress) -> None:
        """Batch by batch; each picture is saved as soon as its batch is done."""
        recipe, by_name = self.recipe(run.name), {item.name: item for item in run.items}
        if self.device == "cpu":
            settle_freed_memory(recipe.size**2)
        items = [by_name[name] for name in pending]
        size = self.batch_size(recipe, items)
        if self.processes.rank == 0:
            self.tell(run, recipe, items[:size], len(pending))
        for start in range(0, len(items), size):
            split_where_full(lambda batch: self.sample_batch(run, recipe, batch, progress), items[start : start + size])

    def batch_size(self, recipe: SampleRecipe, items: Sequence[Item]) -> int:
        """The request's number of pictures at once; where it is left open, as many as fit."""
        if self.request.batch_size is not None:
            return self.request.batch_size
        return largest_batch(
            lambda n: _first_step(recipe, [items[0]] * n), self.device, len(items), self.processes.world
        )

    def tell(self, run: SampleRun, recipe: SampleRecipe, batch: Sequence[Item], left: int) -> None:
        """What a person wants to know before a run; the manifest has all of it."""
        row = recipe.row
        pag = f"PAG s = {row.s:g} at {', '.join(row.layers)}" if row.s > 0 else "no PAG"
        cfg = f", cfg {row.cfg:g}" if row.cfg != 1 else ""
        further = further_guidance(run.store.settings)
        started = time.monotonic()
        for _ in range(2):  # the first step also makes what is made once
            started = time.monotonic()
            _first_step(recipe, batch)
        batches = -(-left // len(batch)) / self.processes.world
        seconds = batches * row.steps * (time.monotonic() - started)
        told = f"{row.sampler} with {row.steps} steps, {recipe.size} px; {pag}{cfg}{further and f', {further}'}"
        interval = tqdm.format_interval(seconds)
        print(
            f"{run.name}: {left} picture{'s' if left > 1 else ''} of prior {row.prior}, {told}; about {interval}",
            file=sys.stderr,
        )

    def sample_batch(self, run: SampleRun, recipe: SampleRecipe, batch: Sequence[Item], progress: Progress) -> None:
        """Sample one batch and save each picture of it."""
        started, seed = time.monotonic(), self.request.seed
        seeds = [stream_seed(seed, item.name, "sampling") for item in batch]

        def tick(done: int, steps: int, _: SampleStep) -> None:
            progress.step(done, steps, None)

        explain = Explainer(recorded_steps(self.request.explain)) if self.request.explain else None
        found = run_sampler(
            recipe.model(batch),
            recipe.sampler,
            recipe.image_shape,
            recipe.row.steps,
            seeds,
            callback=tick,
            explain=explain,
        )
        seconds = round((time.monotonic() - started) / len(batch), 4)
        for b, item in enumerate(batch):
            entry: dict[str, object] = {"label": item.label, "prompt": item.prompt, "seconds": seconds}
            if b in found.failed:
                run.store.finish(item.name, {**entry, "error": f"left the finite numbers at step {found.failed[b]}"})
            else:
                files = {"sample": (f"samples/{item.name}.png", png_bytes(to_uint8(found.x[b].clamp(-1, 1))))}
                files |= {} if explain is None else _explained(item, explain.explanations[b], self.request.explain)
                below = run.store.folder.relative_to(run.store.root)
                placed = {kind: ((below / path).as_posix(), content) for kind, (path, content) in files.items()}
                run.store.finish(item.name, entry, placed)
        progress.image(run.name, *(item.name for item in batch))

    def report(self) -> bool:
        """Score, write grids and the table; whether pictures failed."""
        networks = self.processes.agreed(lambda: self.metrics.load(self.device))
        rank, world = self.processes.rank, self.processes.world
        parts = [(run.store, run.names) for run in self.runs]
        self.processes.agreed(lambda: score_run(parts, networks, self.reference, rank, world))
        self.processes.agreed(lambda: self.write(networks))
        return any(self.failures().values())

    def write(self, networks: MetricNetworks) -> None:
        """The first process tells what failed, and writes the grids, ADM's files and the table."""
        if self.processes.rank:
            return
        for name, failed in self.failures().items():
            print("".join(f"{name}: {i}: {error}\n" for i, error in failed.items()), file=sys.stderr, end="")
        for run in self.runs:
            entries = list(sampled(run.store, run.names).values())
            if entries:
                print(f"written to {write_grid(run.store, entries)}")
            if entries and self.request.npz:
                print(f"written to {write_npz(run.store, entries)}")
            if earlier := sampled(run.store, set(run.store.entries()) - set(run.names)):
                folder = run.store.folder / "samples"
                print(f"{folder} holds {len(earlier)} more of an earlier run: they are not counted", file=sys.stderr)
        named = {run.name: (run.store, run.names) for run in self.runs}
        print(write_results(self.plan, named, networks, self.reference))

    def failures(self) -> Mapping[str, Mapping[str, str]]:
        """The errors of each run's pictures."""
        return {
            run.name: {name: error for name, error in run.store.failures().items() if name in set(run.names)}
            for run in self.runs
        }


def _explained(item: Item, explanation: Explanation, formats: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    """The files that explain a picture."""
    return {f"explain_{kind}": (f"explained/{item.name}.{kind}", explanation.to_bytes(kind)) for kind in formats}


def _first_step(recipe: SampleRecipe, items: Sequence[Item]) -> None:
    """One step of a batch, whose result is thrown away: to learn what it takes."""
    steps = recipe.row.steps
    run_sampler(
        recipe.model(items), recipe.sampler, recipe.image_shape, steps, [0] * len(items), callback=lambda *_: True
    )
