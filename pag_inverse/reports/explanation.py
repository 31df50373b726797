"""Pictures that explain guidance: what each pass predicts over the steps, as a strip or an animation."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from pag_inverse.data.files import write_whole
from pag_inverse.data.images import Picture
from pag_inverse.reports.explanation_figure import grid_figure
from pag_inverse.reports.figures import to_bytes, to_picture
from pag_inverse.settings.names import EXPLAIN_FORMATS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, FRAMES = 8, 40  # of a strip, of an animation
ANIMATED = ("gif", "webp")
_FRAME, _LAST_FRAME = 160, 2000  # milliseconds
_ROWS = {
    "state": r"$x_t$",
    "x0": r"$x_0$ from $\epsilon$",
    "perturbed": r"$x_0$ from $\hat{\epsilon}$",
    "guided": "$x_0$ from\nguided $\\epsilon$",
    "signal": r"$|s\,(\epsilon - \hat{\epsilon})|$",
}


@dataclass(frozen=True)
class ExplainedStep:
    """A step that was recorded: its number, 1 the first, its timestep t, and pictures (H, W, 3) of what it predicted.

    state: x_t. x0, perturbed, guided: x0 = (x_t - sqrt(1 - abar) e) / sqrt(abar) with e = eps, eps_hat and the guided
    eps (Eq. 4 of the paper). signal: |s (eps - eps_hat)|, mean over the channels, (H, W). `perturbed` and `signal` are
    None where no perturbed pass was made. Everything is clamped to [-1, 1], and at most 256 pixels high and wide.
    """

    step: int
    t: int
    state: Picture
    x0: Picture
    guided: Picture
    perturbed: Picture | None = None
    signal: NDArray[np.floating[Any]] | None = None


@dataclass
class Explanation:
    """What guidance did to one picture.

    shown: the recorded steps in their order. timesteps and signal: t and the mean of |s (eps - eps_hat)| over all
    entries of the state, of every step that ran the network; 0 where PAG was off.
    """

    shown: list[ExplainedStep] = field(default_factory=list)
    timesteps: list[int] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)

    @property
    def guided(self) -> bool:
        """Whether a perturbed pass was made at a recorded step."""
        return any(step.signal is not None for step in self.shown)

    def strip(self, columns: int = COLUMNS) -> Figure:
        """A column for each of at most `columns` steps, a row for each kind of picture, the curve of `signal` below.

        The colours of each map go from 0 to its own largest value, which stands below it. Without a perturbed pass only
        x_t and x0 are shown. ValueError: no step was recorded.
        """
        steps = self._some(columns)
        cells = [[getattr(step, kind) for step in steps] for kind in self._kinds()]
        titles = [f"step {step.step}\nt = {step.t}" for step in steps]
        rows = [_ROWS[kind] for kind in self._kinds()]
        return grid_figure(cells, titles, rows, self._curve(), [step.t for step in steps])

    def frames(self) -> list[Picture]:
        """A picture (H, W, 3) for each recorded step; ValueError: no step was recorded."""
        kinds, found = self._kinds(), []
        for step in self._some(len(self.shown)):
            title = [f"step {step.step}\nt = {step.t}"]
            cells = [[getattr(step, kind) for kind in kinds]]
            columns = [_ROWS[kind].replace("\n", " ") for kind in kinds]
            figure = grid_figure(cells, columns, title, self._curve(), [step.t], spread=False)
            found.append(to_picture(figure))
        return found

    def to_bytes(self, kind: str = "png") -> bytes:
        """A strip as png or pdf, an animation as gif or webp; ValueError: another kind, or no step was recorded."""
        if kind not in EXPLAIN_FORMATS:
            raise ValueError(f"unknown format {kind!r} of an explanation; there are {', '.join(EXPLAIN_FORMATS)}")
        return _animation(self.frames(), kind) if kind in ANIMATED else to_bytes(self.strip(), kind)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as the suffix says: .png or .pdf is a strip, .gif or .webp an animation; else a ValueError."""
        write_whole(Path(path), self.to_bytes(Path(path).suffix[1:].lower()))

    def _some(self, columns: int) -> list[ExplainedStep]:
        if not self.shown:
            raise ValueError("no step was recorded: nothing ran, or no step of this solver runs the network")
        return [self.shown[i] for i in spread(len(self.shown), columns)]

    def _kinds(self) -> list[str]:
        return list(_ROWS) if self.guided else ["state", "x0"]

    def _curve(self) -> tuple[Sequence[int], Sequence[float]] | None:
        return (self.timesteps, self.signal) if self.guided else None


def recorded_steps(formats: Sequence[str]) -> int:
    """How many steps these formats show: an animation has more than a strip."""
    return FRAMES if set(formats) & set(ANIMATED) else COLUMNS


def spread(count: int, chosen: int) -> list[int]:
    """At most `chosen` of the indices below `count`, evenly, the first and the last among them."""
    if chosen == 1:
        return [count - 1]
    return sorted({int(i) for i in np.linspace(0, count - 1, min(chosen, count)).round()})


def _animation(frames: Sequence[Picture], kind: str) -> bytes:
    """Frames one after the other, the last for two seconds, without end."""
    images = [PIL.Image.fromarray(frame) for frame in frames]
    times = [*[_FRAME] * (len(images) - 1), _LAST_FRAME]
    options: dict[str, Any] = {"append_images": images[1:], "duration": times, "loop": 0}
    options |= {"quality": 90} if kind == "webp" else {}
    buffer = io.BytesIO()
    images[0].save(buffer, kind.upper(), save_all=True, **options)
    return buffer.getvalue()
