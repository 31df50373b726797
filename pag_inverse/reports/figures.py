"""Figures: images side by side, maps of error and standard deviation with their scale, residuals over the steps.

Drawn by matplotlib without its global state; the same input gives the same bytes. Images inside a figure keep their
pixels: they are never smoothed, and enlarged by nearest neighbour only.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pag_inverse.data.files import write_whole
from pag_inverse.data.images import Image, Picture, to_uint8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

ERROR_LEVELS = 64  # of 255: the top of every error map's scale, so that maps compare
FORMATS = ("png", "pdf", "svg")
_DPI = 128  # a power of two: sizes in inches are exact in pixels
_GAP, _BAR, _LEAST_HEIGHT, _LARGEST_SIDE = 8, 10, 192, 4096  # pixels; matplotlib draws no more than 65535
_INK, _LEVEL = "#222222", "#666666"
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by the colour-blind, too


@dataclass(frozen=True)
class ScaledMap:
    """One number a pixel, (H, W), drawn in colours from 0 to `top` with a colour bar beside it."""

    values: NDArray[np.floating[Any]]
    top: float
    colours: str


def error_map(image: Image, truth: Image) -> tuple[str, ScaledMap]:
    """|image - truth|, mean over the channels, in levels of 255, as a titled tile for `comparison`.

    Both are (3, H, W) in [-1, 1], else a ValueError. The scale is fixed: 0 to ERROR_LEVELS.
    """
    if image.shape != truth.shape:
        raise ValueError(f"an error map needs two images of one shape, not {image.shape} and {truth.shape}")
    levels = np.abs(np.asarray(image) - np.asarray(truth)).mean(axis=0) * 127.5
    return "error, 8-bit levels", ScaledMap(levels, ERROR_LEVELS, "inferno")


def deviation_map(samples: Any) -> tuple[str, ScaledMap]:
    """The standard deviation of samples (S, 3, H, W) in [-1, 1], mean over the channels, as a titled tile.

    In levels of 255; the scale goes from 0 to the largest. Fewer than two samples are a ValueError.
    """
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 4 or len(array) < 2:
        raise ValueError(f"a standard deviation needs two samples or more, (S, 3, H, W), not {array.shape}")
    levels = array.std(axis=0, ddof=1).mean(axis=0) * 127.5
    return "std, 8-bit levels", ScaledMap(levels, max(float(levels.max()), 1e-3), "viridis")


def comparison(tiles: Sequence[tuple[str, Any]]) -> Picture:
    """`comparison_figure` as a picture (H, W, 3)."""
    return to_picture(comparison_figure(tiles))


def comparison_figure(tiles: Sequence[tuple[str, Any]]) -> Figure:
    """Images, pictures and maps side by side, each under its title.

    All are enlarged to the height of the tallest, and small ones further until titles are readable, by nearest
    neighbour. Of pictures above 4096 pixels a side only every so many pixels are shown. No tile is a ValueError.
    """
    from matplotlib.figure import Figure

    if not tiles:
        raise ValueError("a comparison needs one tile or more")
    pictures = _same_height([_as_picture(image) for _, image in tiles])
    height = pictures[0].shape[0]
    font = _font(max(13, height // 18))
    bars = [_bar_width(image, font) for _, image in tiles]
    titles = [
        _wrap(title, font, picture.shape[1] + bar)
        for (title, _), picture, bar in zip(tiles, pictures, bars, strict=True)
    ]
    line = _line_height(font)
    top = _GAP + line * max(map(len, titles))
    width = sum(picture.shape[1] for picture in pictures) + sum(bars) + _GAP * (len(tiles) + 1)
    size = (width, top + height + _GAP)
    figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor="white")
    left = _GAP
    for lines, picture, bar, (_, image) in zip(titles, pictures, bars, tiles, strict=True):
        for row, text in enumerate(lines):
            _text(figure, size, (left, _GAP // 2 + row * line), text, font, "top")
        figure.figimage(picture, left, _GAP, origin="upper")
        if isinstance(image, ScaledMap):
            _draw_bar(figure, size, (left + picture.shape[1], top), height, image, font)
        left += picture.shape[1] + bar + _GAP
    return figure


def residual_curve(residuals: Sequence[float], *, level: float | None = None) -> Picture:
    """`residual_figure` of one curve as a picture (H, W, 3)."""
    return to_picture(residual_figure({"": residuals}, level=level))


def residual_figure(
    curves: Mapping[str, Sequence[float]], *, level: float | None = None, steps: int | None = None
) -> Figure:
    """||y - A(x0)|| over the steps on a logarithmic axis, a line for each named curve.

    `level` is the residual expected of the noise alone, a reference line; where it is 1 the residuals are in units of
    sigma sqrt m, and the axis says so. `steps` is the number of steps that
    curves of fewer points are spread over. Gaps are left where values are not finite or not positive.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.25), dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for (name, values), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
        _draw_curve(axes, [float(v) if _drawable(v) else math.nan for v in values], name, colour, steps)
    if level is not None and _drawable(level):
        axes.axhline(level, color=_LEVEL, linewidth=1.2, linestyle="--", label="expected of the noise")
    _style_axes(axes, [float(v) for values in curves.values() for v in values] + [level or 0.0])
    unit = r" / ($\sigma\sqrt{m}$)" if level == 1 else ""
    axes.set_ylabel(r"residual $\|y - A(\hat{x}_0)\|_2$" + unit, color=_INK)
    last = max([steps or 2, *map(len, curves.values()), 2]) - 1
    axes.set_xlim(-0.02 * last, 1.02 * last)
    return figure


def to_picture(figure: Figure) -> Picture:
    """The figure's pixels, (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(np.asarray(canvas.buffer_rgba())[:, :, :3])


def to_bytes(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a PNG, PDF or SVG file, without dates; another kind is a ValueError."""
    if kind not in FORMATS:
        raise ValueError(f"unknown format {kind!r} of a figure; there are {', '.join(FORMATS)}")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    dated = {"png": "Software", "pdf": "CreationDate", "svg": "Date"}[kind]
    buffer = io.BytesIO()
    # Journals refuse Type 3 fonts; SVG's names are random without a salt.
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "pag_inverse"}):
        FigureCanvasAgg(figure).print_figure(buffer, format=kind, dpi=_DPI, metadata={dated: None})
    return buffer.getvalue()


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as its suffix says: .png, .pdf or .svg, PNG where there is none; else a ValueError."""
    path = Path(path)
    write_whole(path if path.suffix else path.with_suffix(".png"), to_bytes(figure, path.suffix[1:].lower() or "png"))


def _as_picture(image: Any) -> Picture:
    if isinstance(image, ScaledMap):
        return coloured(image.values / image.top, image.colours)
    return image if getattr(image, "dtype", None) == np.uint8 else to_uint8(image)


def coloured(parts: NDArray[Any], colours: str) -> Picture:
    """Numbers (H, W) in 0..1 as colours; what lies outside has the end's."""
    from matplotlib import colormaps

    return np.asarray(colormaps[colours](np.clip(parts, 0.0, 1.0), bytes=True))[:, :, :3]


def _same_height(pictures: list[Picture]) -> list[Picture]:
    tallest = max(picture.shape[0] for picture in pictures)
    height = tallest * math.ceil(_LEAST_HEIGHT / tallest)
    widest = max(picture.shape[1] / picture.shape[0] for picture in pictures) * height
    height = max(1, math.floor(height * min(1.0, _LARGEST_SIDE / max(height, widest))))
    widths = [max(1, round(picture.shape[1] * height / picture.shape[0])) for picture in pictures]
    return [scale_to(picture, height, width) for picture, width in zip(pictures, widths, strict=True)]


def scale_to(picture: Picture, height: int, width: int) -> Picture:
    """The picture at that height and width, by nearest neighbour."""
    rows, columns = picture.shape[:2]
    return picture[np.arange(height)[:, None] * rows // height, np.arange(width) * columns // width]


def _draw_bar(
    figure: Figure, size: tuple[int, int], corner: tuple[int, int], height: int, scaled: ScaledMap, font: FontProperties
) -> None:
    """A colour bar right of (left, top) and as high as its map, with the scale's ends and its middle."""
    left, top = corner[0] + _GAP // 2, corner[1]
    shades = np.repeat(np.linspace(1, 0, height)[:, None], _BAR, axis=1)
    figure.figimage(coloured(shades, scaled.colours), left, size[1] - top - height, origin="upper")
    for part, align in ((0.0, "bottom"), (0.5, "center"), (1.0, "top")):
        place = (left + _BAR + 3, top + round(height * (1 - part)))
        _text(figure, size, place, _tick(scaled, part), _smaller(font), align)


def _bar_width(image: Any, font: FontProperties) -> int:
    if not isinstance(image, ScaledMap):
        return 0
    labels = max(_text_width(_tick(image, part), _smaller(font)) for part in (0.0, 0.5, 1.0))
    return _GAP // 2 + _BAR + 3 + math.ceil(labels)


def _tick(scaled: ScaledMap, part: float) -> str:
    return f"{part * scaled.top:.2g}" if scaled.top < 10 else f"{part * scaled.top:.0f}"


def _text(
    figure: Figure, size: tuple[int, int], place: tuple[int, int], text: str, font: FontProperties, align: str
) -> None:
    """Text at (left, top) in pixels; a dollar sign is no formula."""
    x, y = place[0] / size[0], 1 - place[1] / size[1]
    figure.text(x, y, text, fontproperties=font, va=align, color=_INK, parse_math=False)


def _font(pixels: float) -> FontProperties:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family="DejaVu Sans", size=pixels * 72 / _DPI)


def _smaller(font: FontProperties) -> FontProperties:
    return _font(0.85 * font.get_size_in_points() * _DPI / 72)


def _text_width(text: str, font: FontProperties) -> float:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, _DPI).get_text_width_height_descent(text, font, False)[0]


def _line_height(font: FontProperties) -> int:
    return math.ceil(1.35 * font.get_size_in_points() * _DPI / 72)


def _wrap(title: str, font: FontProperties, width: int) -> list[str]:
    """Break a title between words into lines no wider than its tile, as far as words allow."""
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _text_width(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _draw_curve(axes: Axes, values: list[float], name: str, colour: str, steps: int | None) -> None:
    last = max(steps or 0, len(values), 1) - 1
    places = np.linspace(0, last, len(values))
    axes.plot(places, values, color=colour, linewidth=1.6, label=name or None)
    padded = [math.nan, *values, math.nan]
    alone = [i for i in range(len(values)) if math.isnan(padded[i]) and math.isnan(padded[i + 2])]
    axes.plot(places[alone], [values[i] for i in alone], ".", color=colour)


def _style_axes(axes: Axes, values: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    shown = [value for value in values if _drawable(value)] or [0.1, 1.0]
    low, high = math.log10(min(shown)), math.log10(max(shown))
    margin = max(0.05 * (high - low), 0.02)
    axes.set_yscale("log")
    axes.set_ylim(10 ** (low - margin), 10 ** (high + margin))
    wide = high - low > 0.6
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1.0,) if high - low > 2.5 else (1.0, 2.0, 5.0)) if wide else MaxNLocator(5)
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("step", color=_INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best")


def _cycle(number: int) -> list[str]:
    return [_LINES[i % len(_LINES)] for i in range(number)]


def _drawable(value: float) -> bool:
    return math.isfinite(value) and value > 0
