"""One restoration of the page: in a thread of its own, told step by step, and stopped on demand."""

from __future__ import annotations

import queue
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pag_inverse.app.choices import Files, command
from pag_inverse.app.uploads import shown
from pag_inverse.data.images import Picture, to_uint8
from pag_inverse.priors import Prior, load_prior
from pag_inverse.restoration.batches import Samples, restore_all
from pag_inverse.restoration.request import prior_name, resolve_solver
from pag_inverse.restoration.run import make_run, notices
from pag_inverse.restoration.summary import low_limit
from pag_inverse.restoration.writing import write
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.runtime.failures import is_out_of_memory
from pag_inverse.settings import SolveRequest
from pag_inverse.solvers import StepOutput
from pag_inverse.storage.files import npy

PAUSE = 0.4  # seconds between two pictures of a restoration that goes on
POLL = 0.2  # seconds between two looks at the queue
_QUEUE: list[threading.Event] = []  # the stops of all visitors in the order they came; the first one's restores


class Stopped(Exception):
    """The visitor stopped the restoration."""


@dataclass(frozen=True)
class Progress:
    """Where a restoration is: `step` of `steps` over all samples; x0 as a picture where the step has one."""

    step: int
    steps: int
    sample: int
    samples: int
    seconds_left: float
    picture: Picture | None


@dataclass(frozen=True)
class Waiting:
    """How many restorations come before this one."""

    before: int


@dataclass(frozen=True)
class Outcome:
    """What a restoration ends with.

    before: the measurement at the size of `restoration`, both (H, W, 3). entry: the manifest's entry. folder: the run's
    files, NAME_KIND.png among them. archive: all of it as a zip. notices: what may make the result worse. low: the
    least residual that is near the noise.
    """

    before: Picture
    restoration: Picture
    name: str
    solver: str
    entry: dict[str, Any]
    folder: Path
    archive: Path
    command: str
    notices: list[str]
    low: float

    def picture(self, kind: str) -> Path | None:
        """The file NAME_KIND.png; None where the run has none."""
        path = self.folder / f"{self.name}_{kind}.png"
        return path if path.exists() else None


Message = Waiting | Progress | Outcome | BaseException


def restoring(
    request: SolveRequest, files: Files, folder: Path, stop: threading.Event, pause: float = PAUSE
) -> Iterator[Waiting | Progress | Outcome]:
    """Restore, and yield a `Progress` about every `pause` seconds, then the `Outcome`.

    One restoration runs at a time in the process; the others wait, and yield a `Waiting` at each change of their place.
    It ends after the step at which `stop` is set, or the iterator is closed; at once where it waits. ValueError of one
    line: what does not fit. Stopped: `stop` was set.
    """
    said: queue.Queue[Message] = queue.Queue()
    work = threading.Thread(target=_work, args=(request, files, folder, stop, pause, said.put), daemon=True)
    work.start()
    try:
        while True:
            message = said.get()
            if isinstance(message, BaseException):
                raise message
            yield message
            if isinstance(message, Outcome):
                return
    finally:
        stop.set()


def _work(
    request: SolveRequest,
    files: Files,
    folder: Path,
    stop: threading.Event,
    pause: float,
    say: Callable[[Message], None],
) -> None:
    try:
        with _turn(stop, say):
            say(_restored(request, files, folder, _Watch(stop, pause, say)))
    except (ValueError, OSError) as error:
        say(ValueError(shown(error, files.picture, files.mask, files.kernel)))
    except (MemoryError, RuntimeError) as error:
        say(ValueError("the memory of this machine is too small; take a smaller picture") if full(error) else error)
    except BaseException as error:
        say(error)


@contextmanager
def _turn(stop: threading.Event, say: Callable[[Message], None]) -> Iterator[None]:
    """Wait for the restorations that came before, and say how many those are; raise Stopped where `stop` is set."""
    _QUEUE.append(stop)
    told = 0
    try:
        while before := _QUEUE.index(stop):
            if before != told:
                say(Waiting(told := before))
            if stop.wait(POLL):
                raise Stopped("stopped")
        yield
    finally:
        _QUEUE.remove(stop)


def full(error: BaseException) -> bool:
    """Whether the memory was too small."""
    return isinstance(error, MemoryError) or is_out_of_memory(error)


@dataclass
class _Watch:
    """Counts the steps of all samples and tells them, seldom; raises Stopped."""

    stop: threading.Event
    pause: float
    say: Callable[[Message], None]
    samples: int = 1
    total: int = 1
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    told: float = 0.0

    def check(self) -> None:
        """Raise Stopped where the visitor stopped it."""
        if self.stop.is_set():
            raise Stopped("stopped")

    def begin(self, samples: int, steps: int) -> None:
        """From here on steps are counted."""
        self.check()
        self.samples, self.total, self.started = samples, samples * steps, time.monotonic()
        self.say(Progress(0, self.total, 1, samples, 0.0, None))

    def __call__(self, output: StepOutput) -> None:
        """After each step."""
        self.check()
        self.done, now = self.done + 1, time.monotonic()
        if now - self.told < self.pause and self.done < self.total:
            return
        self.told = now
        left = (now - self.started) / self.done * (self.total - self.done)
        sample = (self.done - 1) * self.samples // self.total + 1
        picture = None if output.x0 is None or not output.x0.isfinite().all() else to_uint8(output.x0[0])
        self.say(Progress(self.done, self.total, sample, self.samples, left, picture))


def _restored(request: SolveRequest, files: Files, folder: Path, watch: _Watch) -> Outcome:
    """The run of `solve` for one picture, into a folder that is made anew."""
    watch.check()
    shutil.rmtree(folder, ignore_errors=True)
    asked = request
    request = resolve_solver(request)
    inputs = files.picture if request.measurement is None else None
    recipe, subjects, store = make_run(request, inputs, folder / "run", _loaded(prior_name(request), request.device))
    settle_freed_memory(subjects[0].image[0].size, request.low_memory)
    with store.open():
        watch.begin(request.samples, recipe.settled.steps)
        ((subject, kept),) = restore_all(recipe, subjects, 1, watch=watch)
        error = write(recipe, store, subject, kept)
    if error is not None:
        raise ValueError(f"the restoration {error}; try another solver or smaller steps")
    line = command(asked, files)
    archive = _archive(folder, subject.name, files, kept, line)
    said = [text.removeprefix("notice").strip().replace("--", "") for text in (*notices(recipe), *subject.notices)]
    before, restoration = to_uint8(kept.enlarged), to_uint8(kept.images[0])
    entry = store.entries()[subject.name]
    return Outcome(
        before, restoration, subject.name, request.solver, entry, store.folder, archive, line, said, low_limit(recipe)
    )


def _archive(folder: Path, name: str, files: Files, kept: Samples, line: str) -> Path:
    """Everything as a zip: the run's files, the visitor's under inputs/, and the command that gives the same."""
    path = folder / f"{name}_restored.zip"
    run = folder / "run"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(run.iterdir()):
            if not file.name.startswith(".") and file.suffix != ".lock":
                archive.write(file, file.name)
        archive.write(files.picture, f"inputs/{files.picture.name}")
        for kind in ("mask", "kernel"):
            if (given := getattr(files, kind)) is not None:
                archive.write(given, f"inputs/{kind}/{given.name}")
        if len(kept.images) > 1:
            mean = sum(image.clamp(-1, 1) for image in kept.images.values()) / len(kept.images)
            archive.writestr(f"{name}_mean.npy", npy(mean))
        archive.writestr("command.txt", f"{line}\n")
    return path


@lru_cache(maxsize=2)
def _loaded(prior: str, device: str) -> Prior:
    """An embedded prior, kept for the next restoration."""
    return load_prior(prior, device=device)
