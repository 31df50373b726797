"""Restoring many pictures batch by batch: what solve and evaluate have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pag_inverse.guidance import Explainer
from pag_inverse.reports.explanation import Explanation, recorded_steps
from pag_inverse.restoration.canvas import Canvas
from pag_inverse.restoration.compositing import pasted
from pag_inverse.restoration.loop import run_chain
from pag_inverse.restoration.recipe import Recipe
from pag_inverse.restoration.subjects import Subject
from pag_inverse.runtime.batching import largest_batch, split_where_full
from pag_inverse.runtime.streams import batch_draw, stream_seed
from pag_inverse.solvers import StepOutput

Item = tuple[Subject, int]  # a picture and the number of a sample
Tick = Callable[[int, int, float | None], None]  # steps done of steps, and the mean relative residual where known
Watch = Callable[[StepOutput], None]  # what a step gives


@dataclass
class Samples:
    """The samples of one picture so far.

    `images` and `residuals` (over the steps, relative to the noise level) are by sample number, `failed` holds the
    step at which a sample left the finite numbers. `y` is the measurement, `enlarged` the same at the picture's size,
    `drawn` the mask or kernel that the operator has, `seconds` the time of all samples, `explanation` what guidance did
    to the first sample, where the request asks for it.
    """

    images: dict[int, Tensor] = field(default_factory=dict)
    residuals: dict[int, list[float]] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    y: Tensor | None = None
    enlarged: Tensor | None = None
    drawn: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    seconds: float = 0.0
    explanation: Explanation | None = None

    def failure(self) -> str | None:
        """Which samples left the finite numbers, and where; None where none did."""
        if not self.failed:
            return None
        where = ", ".join(f"sample {s} at step {step}" for s, step in sorted(self.failed.items()))
        return f"left the finite numbers ({where})"


def restore_all(
    recipe: Recipe,
    subjects: Iterable[Subject],
    batch_size: int,
    tick: Tick = lambda *_: None,
    watch: Watch = lambda _: None,
) -> Iterator[tuple[Subject, Samples]]:
    """Every sample of every picture, `batch_size` at once; a picture is yielded when its last sample is done.

    Pictures are read from `subjects` as they are needed, and forgotten when they are yielded. `tick` and then `watch`
    are called after each step; an exception of theirs ends the run.
    """
    count, fits = recipe.request.samples, recipe.request.whole or recipe.request.measurement is not None
    gathered: dict[str, Samples] = {}
    items = ((subject, sample) for subject in subjects for sample in range(count))
    for _, alike in groupby(items, key=lambda item: item[0].kind):  # a batch holds pictures of one size
        fitted = recipe
        while batch := list(islice(alike, batch_size)):
            if fits and fitted is recipe:
                fitted = recipe.for_example(batch[0][0])
            split_where_full(partial(_restore_batch, fitted, gathered, tick, watch), batch)
            for subject in {subject.name: subject for subject, _ in batch}.values():
                if len(gathered[subject.name].images) == count:
                    yield subject, gathered.pop(subject.name)


def _restore_batch(
    recipe: Recipe, gathered: dict[str, Samples], tick: Tick, watch: Watch, batch: Sequence[Item]
) -> None:
    """Solve one batch and file each sample under its picture."""
    problem = recipe.problem([subject for subject, _ in batch])
    operator, unit = problem.operator, problem.residual_unit()

    def show(done: int, steps: int, output: StepOutput) -> None:
        tick(done, steps, None if output.x0 is None else float((output.residual / unit).mean()))
        watch(output)

    started, request = time.monotonic(), recipe.request
    seeds = [stream_seed(request.seed, subject.name, "sampling", sample) for subject, sample in batch]
    model, settled = recipe.model(problem), recipe.settled
    first = [b for b, (_, sample) in enumerate(batch) if sample == 0]
    explain = Explainer(recorded_steps(request.explain), of=first) if request.explain and first else None
    result = run_chain(problem, model, settled.solver, settled.steps, seeds, callback=show, explain=explain)
    seconds = (time.monotonic() - started) / len(batch)
    x = result.x
    if request.composite == "measurement":
        x = pasted(x, problem, request.composite_edge)
    for b, (subject, sample) in enumerate(batch):
        kept = gathered.setdefault(subject.name, Samples())
        kept.images[sample], kept.y, kept.seconds = x[b].cpu(), problem.y[b].cpu(), kept.seconds + seconds
        kept.residuals[sample] = (result.residuals[b] / unit[b]).tolist()
        kept.enlarged, kept.drawn = operator.enlarge(problem.y)[b].cpu(), operator.arrays(b)
        if b in result.failed:
            kept.failed[sample] = result.failed[b]
    if explain is not None:
        for b, explanation in zip(first, explain.explanations, strict=True):
            gathered[batch[b][0].name].explanation = explanation


def choose_batch_size(recipe: Recipe, example: Subject, limit: int, processes: int = 1) -> int:
    """The request's number of images at once; where it is left open, as many as fit, at most `limit`."""
    if recipe.request.batch_size is not None:
        return recipe.request.batch_size

    def step(n: int) -> None:
        first_step(recipe, [example] * n)

    return largest_batch(step, recipe.request.device, limit, processes)


def first_step(recipe: Recipe, subjects: Sequence[Subject]) -> None:
    """One step of a batch, whose result is thrown away: to learn what it takes."""
    problem = Canvas.of(recipe.problem(subjects), recipe.prior).problem.white
    model = recipe.model(problem)
    solver, steps = recipe.settled.solver, recipe.settled.steps
    draw, schedule = batch_draw([0] * len(subjects), recipe.request.device), solver.schedule(recipe.prior, steps)
    state = solver.start(problem, model, schedule, draw)
    solver.step(state, steps - 1, problem, model, schedule, draw)
