"""Pictures for a person to look at: images side by side, error maps, curves of the residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from pag_inverse.data.images import Image, Picture, to_uint8

ERROR_LEVELS = 64  # of 255: the error drawn as white, the same in every map so that maps compare
_GAP = 8
_INK, _FAINT, _LINE, _LEVEL = (40, 40, 40), (222, 222, 222), (31, 105, 180), (200, 90, 20)


def comparison(tiles: Sequence[tuple[str, Any]]) -> Picture:
    """Lay images or pictures side by side, each under its title, as one picture (H, W, 3).

    Smaller ones are enlarged to the tallest by nearest neighbour, so that their pixels show. No tile is a
    ValueError.
    """
    if not tiles:
        raise ValueError("a comparison needs one tile or more")
    pictures = [_as_picture(image) for _, image in tiles]
    height = max(picture.shape[0] for picture in pictures)
    pictures = [_enlarge(picture, height) for picture in pictures]
    font = _font(max(11, height // 18))
    titles = [_wrap(title, font, p.shape[1]) for (title, _), p in zip(tiles, pictures, strict=True)]
    line = _line_height(font)
    top = _GAP + line * max(len(lines) for lines in titles) + _GAP // 2
    width = sum(picture.shape[1] + _GAP for picture in pictures) + _GAP
    canvas = PIL.Image.new("RGB", (width, top + height + _GAP), "white")
    draw, left = PIL.ImageDraw.Draw(canvas), _GAP
    for lines, picture in zip(titles, pictures, strict=True):
        for row, text in enumerate(lines):
            draw.text((left, _GAP + row * line), text, fill=_INK, font=font)
        canvas.paste(PIL.Image.fromarray(picture), (left, top))
        left += picture.shape[1] + _GAP
    return np.asarray(canvas)


def error_map(image: Image, truth: Image) -> tuple[str, Image]:
    """Draw |image - truth|, mean over the channels, as a titled tile for `comparison`.

    Both are (3, H, W) in [-1, 1], else a ValueError. The scale is fixed: white is ERROR_LEVELS of 255.
    """
    if image.shape != truth.shape:
        raise ValueError(f"an error map needs two images of one shape, not {image.shape} and {truth.shape}")
    levels = np.abs(np.asarray(image) - np.asarray(truth)).mean(axis=0) * 127.5
    grey = np.clip(levels / ERROR_LEVELS, 0.0, 1.0) * 2.0 - 1.0
    return f"error, white = {ERROR_LEVELS} of 255", np.repeat(grey[None], 3, axis=0).astype(np.float32)


def residual_curve(residuals: Sequence[float], *, level: float | None = None) -> Picture:
    """Plot ||y - A(x0)|| over the steps, on a logarithmic axis, as a picture of 320 x 480 pixels.

    `level` is a reference line, such as the norm expected of the noise alone. What is not finite or not
    positive leaves a gap.
    """
    values = [float(value) for value in residuals]
    shown = [value for value in [*values, level or 0.0] if _drawable(value)]
    canvas = PIL.Image.new("RGB", (480, 320), "white")
    plot = _Plot(canvas, steps=len(values), low=min(shown, default=0.1), high=max(shown, default=1.0))
    plot.axes("step", "residual ||y - A(x0)||")
    if level is not None:
        plot.level(level, "expected of the noise")
    plot.line(values)
    return np.asarray(canvas)


class _Plot:
    """A frame with a linear step axis and a logarithmic value axis."""

    def __init__(self, canvas: PIL.Image.Image, steps: int, low: float, high: float) -> None:
        self.draw, self.font = PIL.ImageDraw.Draw(canvas), _font(12)
        self.left, self.top, self.right, self.bottom = 58, 34, canvas.width - 16, canvas.height - 44
        self.last = max(steps - 1, 1)
        self.low, self.high = math.log10(low) - 0.05, math.log10(high) + 0.05

    def x(self, step: float) -> float:
        return self.left + (self.right - self.left) * step / self.last

    def y(self, value: float) -> float:
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * part

    def axes(self, x_label: str, y_label: str) -> None:
        for value in _log_ticks(self.low, self.high):
            self.draw.line([(self.left, self.y(value)), (self.right, self.y(value))], fill=_FAINT)
            self._text((self.left - 6, self.y(value)), f"{value:g}", "rm")
        for step in _step_ticks(self.last):
            self.draw.line([(self.x(step), self.bottom), (self.x(step), self.bottom + 4)], fill=_INK)
            self._text((self.x(step), self.bottom + 7), str(step), "ma")
        corner = (self.left, self.bottom)
        self.draw.line([(self.left, self.top), corner, (self.right, self.bottom)], fill=_INK)
        self._text(((self.left + self.right) / 2, self.bottom + 24), x_label, "ma")
        self._text((8, 10), y_label, "la")

    def level(self, value: float, label: str) -> None:
        if _drawable(value):
            self.draw.line([(self.left, self.y(value)), (self.right, self.y(value))], fill=_LEVEL, width=1)
            self.draw.text((self.right, 10), label, fill=_LEVEL, font=self.font, anchor="ra")

    def line(self, values: Sequence[float]) -> None:
        """Draw the runs of drawable values; a point that stands alone is a dot."""
        points = [(self.x(i), self.y(v)) if _drawable(v) else None for i, v in enumerate(values)]
        for before, point, after in zip([None, *points], points, [*points[1:], None], strict=False):
            if point and before:
                self.draw.line([before, point], fill=_LINE, width=2)
            elif point and not after:
                x, y = point
                self.draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=_LINE)

    def _text(self, place: tuple[float, float], text: str, anchor: str) -> None:
        self.draw.text(place, text, fill=_INK, font=self.font, anchor=anchor)


def _drawable(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten in the range; only the powers where it is wide, finer where narrow."""
    digits = (1,) if high - low > 2.5 else (1, 2, 5) if high - low > 0.6 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return inside or [float(f"{10 ** ((low + high) / 2):.3g}")]


def _step_ticks(last: int) -> list[int]:
    rough = 10.0 ** math.floor(math.log10(last))
    stride = next(s for s in (rough / 5, rough / 2, rough, 2 * rough) if last / s <= 6 and s >= 1)
    return list(range(0, last + 1, int(stride)))


def _as_picture(image: Any) -> Picture:
    return image if getattr(image, "dtype", None) == np.uint8 else to_uint8(image)


def _enlarge(picture: Picture, height: int) -> Picture:
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return np.asarray(PIL.Image.fromarray(picture).resize((width, height), PIL.Image.Resampling.NEAREST))


def _font(size: int) -> Any:
    return PIL.ImageFont.load_default(size)


def _line_height(font: Any) -> int:
    _, top, _, bottom = font.getbbox("Ag|")
    return int(bottom - top) + 4


def _wrap(title: str, font: Any, width: int) -> list[str]:
    """Break a title between words into lines no wider than its tile, as far as words allow."""
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
