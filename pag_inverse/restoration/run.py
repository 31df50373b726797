"""The part of the solve command that computes: wire the objects, restore batch by batch, write what came out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from pag_inverse.runtime.batching import largest_batch, split_where_full
from pag_inverse.restoration.subjects import Subject, read_subjects
from pag_inverse.storage.records import RunFolder, check_writable
from pag_inverse.restoration.request import Request
from pag_inverse.restoration.writing import Gathered, summarise, write
from pag_inverse.restoration.recipe import (
    Setup,
    build_operator,
    describe,
    measure,
    request_prior,
    residual_unit,
    settle_memory,
    settled,
    wire,
)
from pag_inverse.restoration.loop import solve
from pag_inverse.solvers import StepOutput, make_solver
from pag_inverse.runtime.streams import batch_draw, stream_seed


def list_layers(request: Request) -> int:
    prior = request_prior(request)
    rows = [("checkpoint", "diffusers"), *((layer.checkpoint, layer.diffusers) for layer in prior.layers())]
    width = max(len(a) for a, _ in rows)
    for ours, theirs in rows:
        print(f"{ours:{width}}  {theirs}")
    return 0


def restore(request: Request) -> int:
    """Check everything that can be checked, then restore; 1 if an image left the finite numbers."""
    setup = wire(request)
    subjects = read_subjects(request, setup.size)
    example = build_operator(request, setup, subjects[:1])
    setup.prior.state_shape(example.in_shape)
    request = settled(request, setup.prior, example)
    make_solver(request.task.solver, request.row).check(example)
    settings = describe(request, setup)
    folder = RunFolder(request.output, settings, request.overwrite)
    check_writable(request.output)
    print("\n".join(f"{key:14} {value}" for key, value in settings.items()), file=sys.stderr)
    if request.dry_run:
        return 0
    settle_memory(request, example)
    folder.start()
    left = [subject for subject in subjects if subject.name not in folder.images]
    if len(left) < len(subjects):
        print(f"{len(subjects) - len(left)} of {len(subjects)} already finished", file=sys.stderr)
    return run_batches(request, setup, folder, left)


def settle_batch(request: Request, setup: Setup, subject: Subject, limit: int, processes: int = 1) -> Request:
    """The request with the number of images that fit where that is left open, at most `limit`."""
    if request.batch_size is not None:
        return request

    def step(n: int) -> None:
        operator = build_operator(request, setup, [subject] * n)
        y = measure(request, setup, operator, [subject] * n)
        solver, last = make_solver(request.task.solver, request.row), request.row.steps - 1
        draw = batch_draw([0] * n, request.device)
        z = draw((n, *setup.prior.state_shape(operator.in_shape)))
        schedule = solver.schedule(setup.prior, request.row.steps)
        solver.step(z, last, schedule, y, setup.noise, operator, setup.prior, setup.guidance, draw)

    found = largest_batch(step, request.device, limit, processes)
    print(f"batch size     {found}", file=sys.stderr)
    return replace(request, batch_size=found)


def run_batches(request: Request, setup: Setup, folder: RunFolder, subjects: Sequence[Subject]) -> int:
    items = [(subject, sample) for subject in subjects for sample in range(request.samples)]
    if items:
        request = settle_batch(request, setup, subjects[0], len(items))
    size = request.batch_size or 1
    gathered = {subject.name: Gathered() for subject in subjects}
    total, failures = math.ceil(len(items) / size) * request.row.steps, 0
    with tqdm(total=total, unit="step", disable=not items) as bar:
        for batch in batches(items, size):
            split_where_full(lambda part: run_batch(request, setup, part, gathered, bar), batch)
            for subject in finished(batch, gathered, request.samples):
                failures += write(request, folder, subject, gathered.pop(subject.name))
    summarise(folder)
    return 1 if failures else 0


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def run_batch(
    request: Request,
    setup: Setup,
    batch: Sequence[tuple[Subject, int]],
    gathered: dict[str, Gathered],
    bar: Any,
) -> None:
    """Solve one batch and file each sample under its image."""
    subjects = [subject for subject, _ in batch]
    operator = build_operator(request, setup, subjects)
    y = measure(request, setup, operator, subjects)
    unit = residual_unit(request, operator, y)

    def show(done: int, steps: int, output: StepOutput) -> None:
        bar.update()
        if output.x0 is not None:
            bar.set_postfix_str(f"residual {float((output.residual / unit).mean()):.2f}")

    started = time.monotonic()
    seeds = [stream_seed(request.seed, subject.name, "sampling", sample) for subject, sample in batch]
    result = solve(
        y,
        operator,
        setup.prior,
        make_solver(request.task.solver, request.row),
        setup.guidance,
        noise=setup.noise,
        steps=request.row.steps,
        seeds=seeds,
        callback=show,
    )
    seconds = (time.monotonic() - started) / len(batch)
    x = operator.project(result.x, y * operator.observation_mask(y)) if request.composite == "measurement" else result.x
    for b, (subject, sample) in enumerate(batch):
        kept = gathered[subject.name]
        kept.samples[sample], kept.y, kept.seconds = x[b].cpu(), y[b].cpu(), kept.seconds + seconds
        kept.residuals[sample] = (result.residuals[b] / unit[b]).tolist()
        kept.enlarged = operator.enlarge(y)[b].cpu()
        if b in result.failed:
            kept.failed[sample] = result.failed[b]


def finished(batch: Sequence[tuple[Subject, int]], gathered: dict[str, Gathered], samples: int) -> list[Subject]:
    subjects = {subject.name: subject for subject, _ in batch}
    return [s for name, s in subjects.items() if len(gathered[name].samples) == samples]
