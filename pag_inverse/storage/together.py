"""Several processes at one set of runs: what they agree on before they work."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from pag_inverse.runtime.processes import Processes
from pag_inverse.storage.entries import Survey
from pag_inverse.storage.files import differences
from pag_inverse.storage.run_store import RunStore


def agree_on_settings(processes: Processes, stores: Sequence[RunStore], further: Mapping[str, object]) -> None:
    """ValueError where processes were started with different arguments: settings of runs, or `further` ones."""
    theirs = processes.gather([{**store.settings, **further} for store in stores])
    for other in theirs:
        if len(other) != len(theirs[0]):
            raise ValueError("the processes were started with different runs")
        for one, another in zip(theirs[0], other, strict=True):
            if said := differences(one, another):
                raise ValueError(f"the processes were started with different settings: {'; '.join(said)}")


def open_all(opened: ExitStack, stores: Sequence[RunStore], overwrite: bool) -> None:
    """Take every run's lock; what was there is forgotten where it shall be overwritten."""
    for store in stores:
        opened.enter_context(store.open(overwrite))


def tell_surveys(processes: Processes, surveys: Sequence[Survey], total: int) -> int:
    """Say what is damaged and what is finished of `total` images; how many need no more work, of all processes."""
    for survey in surveys:
        print("\n".join(survey.damaged), file=sys.stderr, end="\n" if survey.damaged else "")
    finished = sum(processes.gather(sum(len(survey.finished) for survey in surveys)))
    if finished and processes.rank == 0:
        print(f"{finished} of {total} already finished", file=sys.stderr)
    return total - sum(processes.gather(sum(len(survey.pending) for survey in surveys)))
