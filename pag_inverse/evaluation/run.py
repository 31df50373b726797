"""The part of the evaluate command that computes: check together, restore what is left, score, report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from pag_inverse.runtime.batching import split_where_full
from pag_inverse.restoration import run as restore
from pag_inverse.evaluation.cells import Ready, prepare_cells, subject_of
from pag_inverse.evaluation.filing import write
from pag_inverse.restoration.subjects import Subject
from pag_inverse.evaluation.plans import Plan
from pag_inverse.evaluation.progress import Progress
from pag_inverse.restoration.writing import Gathered
from pag_inverse.evaluation.scoring import report, score
from pag_inverse.data.images import prepare, read_image
from pag_inverse.storage.saved import differences
from pag_inverse.runtime.processes import FolderLock, Processes, held_beside

LOCKS = ".locks"


def evaluate(plan: Plan, processes: Processes, args: argparse.Namespace) -> int:
    """Restore what is missing, score it, and write the report; 1 where images failed."""
    processes.join()
    try:
        return _together(plan, processes, args)
    finally:
        processes.leave()


def _together(plan: Plan, processes: Processes, args: argparse.Namespace) -> int:
    ready = agreed(processes, lambda: prepare_cells(plan, processes, args))
    theirs = processes.gather([{**cell.settings, "shuffle": args.shuffle} for cell in ready])
    for other in theirs:
        for one, another in zip(theirs[0], other, strict=False):
            if said := differences(one, another):
                raise ValueError(f"the processes were started with different settings: {'; '.join(said)}")
    if any(len(other) != len(ready) for other in theirs):
        raise ValueError("the processes were started with different cells")
    lock = agreed(processes, lambda: FolderLock(plan.output / LOCKS / f"rank-{processes.rank:03d}.lock"))
    try:
        agreed(processes, lambda: start(plan, ready, processes, args.overwrite))
        return 1 if compute(ready, processes, args) else 0
    except OSError as error:  # everything was checked: a disk that is full, or gone
        print(f"evaluate: {error}; what is finished is kept, and the same command goes on", file=sys.stderr)
        return 1
    finally:
        lock.release()


def compute(ready: list[Ready], processes: Processes, args: argparse.Namespace) -> list[str]:
    """Restore, score, report; a line for each image that failed."""
    restore_cells(ready, processes, args)
    processes.gather(None)
    score([cell.saved for cell in ready], args, processes, ready[0].request.device)
    processes.gather(None)
    failed = failures(ready)
    if processes.rank == 0:
        print("\n".join(failed), file=sys.stderr, end="\n" if failed else "")
        print(f"written to {report([cell.saved for cell in ready], args)}")
    processes.gather(None)
    return failed


def agreed(processes: Processes, act: Any) -> Any:
    """Do something in every process; ValueError in all of them where one of them cannot."""
    result, problem = None, None
    try:
        result = act()
    except (ValueError, OSError) as error:
        problem = str(error)
    problems = [p for p in processes.gather(problem) if p]
    if problems:
        raise ValueError(problems[0])
    return result


def start(plan: Plan, ready: list[Ready], processes: Processes, overwrite: bool) -> None:
    """The first process makes the folders; ValueError where processes of another run are left in them."""
    if processes.rank:
        return
    held = held_beside(plan.output / LOCKS, [f"rank-{r:03d}.lock" for r in range(processes.world)])
    if held:
        raise ValueError(f"{plan.output}: another run is at work in this folder ({', '.join(held)})")
    for cell in ready:
        if overwrite:
            cell.saved.clear()
        cell.saved.start(cell.settings)


def order_of(images: Iterable[str], shuffle: bool, seed: int) -> list[str]:
    """The order of the work: sorted by id, or drawn, so that a part of a run is a fair sample of the whole."""
    ids = list(images)
    return [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))] if shuffle else ids


def restore_cells(ready: list[Ready], processes: Processes, args: argparse.Namespace) -> None:
    """Each process restores its own images of every cell, without a word to the others."""
    mine = processes.deal(order_of(ready[0].images, args.shuffle, args.seed))
    left, finished = [], 0
    for cell in ready:
        whole, said = cell.saved.sort_out(mine)
        print("\n".join(said), file=sys.stderr, end="\n" if said else "")
        left.append([image_id for image_id in mine if image_id not in whole])
        finished += len(whole)
    finished = sum(processes.gather(finished))
    if finished and processes.rank == 0:
        print(f"{finished} of {len(ready) * len(ready[0].images)} already finished", file=sys.stderr)
    folders, total = [cell.saved.folder for cell in ready], len(ready) * len(ready[0].images)
    progress = Progress(folders, sum(map(len, left)), total, finished, processes, args.log_json)
    try:
        for cell, ids in zip(ready, left, strict=True):
            restore_cell(cell, ids, processes, progress)
    finally:
        progress.close()


def restore_cell(cell: Ready, ids: list[str], processes: Processes, progress: Progress) -> None:
    """Batch by batch; what an image needs is held only until it is written."""
    gathered: dict[str, Gathered] = {}
    items = samples_of(cell, ids, processes.rank, gathered, progress)
    example = subject_of("example", "", np.zeros((3, cell.setup.size, cell.setup.size), np.float32))
    limit = len(ids) * cell.request.samples
    request = restore.settle_batch(cell.request, cell.setup, example, limit, processes.world) if ids else cell.request
    while batch := list(islice(items, request.batch_size or 1)):
        split_where_full(lambda part: restore.run_batch(request, cell.setup, part, gathered, progress), batch)
        for subject in restore.finished(batch, gathered, cell.request.samples):
            write(cell, subject, gathered.pop(subject.name), processes.rank)
            progress.image(cell.saved.name, subject.name)


def samples_of(
    cell: Ready, ids: list[str], rank: int, gathered: dict[str, Gathered], progress: Progress
) -> Iterator[tuple[Subject, int]]:
    """Every sample of every image that can be read, one image after the other; the others are recorded as failed."""
    for image_id in ids:
        path = cell.images[image_id]
        try:
            image = prepare(read_image(path), cell.setup.size, cell.request.resize)
        except ValueError as error:
            cell.saved.finish(rank, {"image": image_id, "error": str(error), "retry": True}, {})
            progress.image(cell.saved.name, image_id)
            continue
        gathered[image_id] = Gathered()
        subject = subject_of(image_id, str(path), np.ascontiguousarray(image, dtype=np.float32))
        yield from ((subject, sample) for sample in range(cell.request.samples))


def failures(ready: list[Ready]) -> list[str]:
    found = []
    for cell in ready:
        entries, _ = cell.saved.entries()
        found += [f"{cell.saved.name}: {i}: {e['error']}" for i, e in entries.items() if "error" in e]
    return found
