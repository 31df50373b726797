"""A grid of pictures and maps with a curve below: the sheet that explains guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pag_inverse.reports.figures import coloured, scale_to

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 128  # a power of two: sizes in inches are exact in pixels
_GAP, _BAR, _CURVE, _LABELS, _TITLES = 4, 10, 150, 112, 40  # pixels: between tiles, bar, curve, left and upper margin
_NUMBERS = 14  # pixels below a map
_LEAST, _FONT, _SMALL = 112, 7.5, 6.5  # the least side of a tile in pixels; points
_INK, _LINE, _MARK = "#222222", "#0072b2", "#d55e00"
Curve = tuple[Sequence[int], Sequence[float]]


def grid_figure(
    cells: Sequence[Sequence[Any]],
    columns: Sequence[str],
    rows: Sequence[str],
    curve: Curve | None,
    marked: Sequence[int],
    *,
    spread: bool = True,
) -> Figure:
    """Pictures (H, W, 3), maps (H, W) or None, by rows and columns under their titles, all of one size.

    A map is coloured from 0 to its own largest value, which stands below it. `curve` is the timesteps and the values of
    a curve below, with dots at the timesteps `marked`. spread: the columns are the marked timesteps, and the curve lies
    so that evenly spaced ones are below their columns. Small pictures are enlarged by nearest neighbour.
    """
    from matplotlib.figure import Figure

    height, width = _tile_size(cells)
    right = 48 if curve is not None else 8
    sheet_width = _LABELS + len(columns) * (width + _GAP) + right
    below = _CURVE + 42 if curve is not None else _GAP
    below += _NUMBERS if any(_is_map(cell) for row in cells for cell in row) else 0
    sheet = (sheet_width, _TITLES + len(cells) * (height + _GAP) + below)
    figure = Figure(figsize=(sheet[0] / _DPI, sheet[1] / _DPI), dpi=_DPI, facecolor="white")
    for r, row in enumerate(cells):
        upper = _TITLES + r * (height + _GAP)
        _text(figure, sheet, (_LABELS - 8, upper + height // 2), rows[r], ha="right", va="center")
        for c, cell in enumerate(row):
            left = _LABELS + c * (width + _GAP)
            if r == 0:
                _text(figure, sheet, (left + width // 2, _TITLES - 4), columns[c], ha="center", va="bottom")
            _place(figure, sheet, (left, upper), (height, width), cell)
        if any(_is_map(cell) for cell in row):
            _bar(figure, sheet, (sheet_width - right, upper), height)
    if curve is not None:
        box = (_LABELS, 38, len(columns) * (width + _GAP) - _GAP, _CURVE)
        x0, y0, w, h = (v / sheet[i % 2] for i, v in enumerate(box))
        _draw(figure.add_axes((x0, y0, w, h)), curve, marked, width / box[2] if spread else 0.0)
    return figure


def _tile_size(cells: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """The height and width of every tile: a whole multiple of the pictures'."""
    height, width = next(cell.shape[:2] for row in cells for cell in row if cell is not None)
    factor = max(1, math.ceil(_LEAST / max(height, width)))
    return height * factor, width * factor


def _is_map(cell: Any) -> bool:
    return cell is not None and cell.ndim == 2


def _place(figure: Figure, sheet: tuple[int, int], corner: tuple[int, int], size: tuple[int, int], cell: Any) -> None:
    """A cell at (left, top), a map with its largest value below; one without a picture is grey."""
    picture = np.full((*size, 3), 238, dtype=np.uint8) if cell is None else cell
    if _is_map(cell):
        top = float(cell.max())
        picture = coloured(cell / max(top, 1e-12), "inferno")
        place = (corner[0] + size[1] // 2, corner[1] + size[0] + 2)
        _text(figure, sheet, place, f"max {top:.2g}", ha="center", va="top", size=_SMALL)
    figure.figimage(scale_to(picture, *size), corner[0], sheet[1] - corner[1] - size[0], origin="upper")


def _bar(figure: Figure, sheet: tuple[int, int], corner: tuple[int, int], height: int) -> None:
    """The bar of the colours, from 0 to a map's largest value."""
    shades = np.repeat(np.linspace(1, 0, height)[:, None], _BAR, axis=1)
    figure.figimage(coloured(shades, "inferno"), corner[0], sheet[1] - corner[1] - height, origin="upper")
    left = corner[0] + _BAR + 3
    _text(figure, sheet, (left, corner[1]), "max", ha="left", va="top", size=_SMALL)
    _text(figure, sheet, (left, corner[1] + height), "0", ha="left", va="bottom", size=_SMALL)


def _draw(axes: Axes, curve: Curve, marked: Sequence[int], column: float) -> None:
    """The curve over t, which falls from left to right; `column` is the width of a column in parts of the axes."""
    timesteps, values = list(curve[0]), list(curve[1])
    axes.plot(timesteps, values, color=_LINE, linewidth=1.1)
    known = dict(zip(timesteps, values, strict=True))
    axes.plot(marked, [known[t] for t in marked], "o", color=_MARK, markersize=3.5)
    first, last = max(timesteps), min(timesteps)
    share = column / 2 if len(marked) > 1 and column else 0.02
    margin = max(first - last, 1) * share / (1 - 2 * share)
    axes.set_xlim(first + margin, last - margin)
    axes.set_ylim(0, 1.1 * max([v for v in values if math.isfinite(v)], default=0.0) or 1.0)
    axes.set_xlabel("t", fontsize=_FONT, color=_INK, labelpad=1)
    axes.set_ylabel("mean of\n" + r"$|s\,(\epsilon - \hat{\epsilon})|$", fontsize=_FONT, color=_INK)
    axes.tick_params(labelsize=_SMALL, colors=_INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _text(
    figure: Figure,
    sheet: tuple[int, int],
    place: tuple[int, int],
    text: str,
    *,
    ha: str,
    va: str,
    size: float = _FONT,
) -> None:
    """Text at (left, top) in pixels."""
    x, y = place[0] / sheet[0], 1 - place[1] / sheet[1]
    figure.text(x, y, text, ha=ha, va=va, color=_INK, fontsize=size, linespacing=1.1)
