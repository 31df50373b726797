"""A bar of the steps of restore()."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pag_inverse.restoration.loop import Callback
from pag_inverse.solvers import StepOutput


@contextmanager
def step_bar(callback: Callback | None, progress: bool | None, total: int) -> Iterator[Callback | None]:
    """The callback, with a bar of `total` steps on stderr beside it; None shows it where stderr is a terminal."""
    if not (sys.stderr is not None and sys.stderr.isatty() if progress is None else progress):
        yield callback
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="step") as bar:

        def advance(done: int, steps: int, output: StepOutput) -> object:
            bar.update()
            return callback(done, steps, output) if callback is not None else None

        yield advance
