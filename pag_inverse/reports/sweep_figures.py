"""A sweep over guidance as figures: heat map, curves against the scale, and strips of pictures (Figs. 12, 38 to 40)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pag_inverse.data.images import Picture, read_picture
from pag_inverse.reports.figures import comparison_figure
from pag_inverse.reports.sweep import MEASURES, Score, SweepReport, SweepRow, short_layer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_MAP, LARGEST_CURVES, LARGEST_PANELS = 60, 9, 4  # rows of a heat map, lines and rows of curves: the best ones
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31", "#888888")
_MARKS = "osD^vPX<>"
_INK, _GRID = "#222222", "#dddddd"
Group = tuple[str, tuple[str, ...]]  # a guidance and its layers


class SolverSweep:
    """The settings of one solver, in groups that differ in s alone: the plain row, and the groups, the best first."""

    def __init__(self, report: SweepReport, solver: str) -> None:
        rows = [row for row in report.ranked() if row.solver == solver]
        self.solver, self.quality = solver, report.quality
        self.plain = next((row for row in rows if row.s == 0), None)
        self.groups: dict[Group, dict[float, SweepRow]] = {}
        for row in rows:
            if row.s > 0:
                self.groups.setdefault((row.guidance, row.layers), {})[row.s] = row
        self.scales = sorted({s for rows in self.groups.values() for s in rows})

    def label(self, group: Group) -> str:
        """What of a group differs between the groups."""
        guidance, layers = group
        short = "+".join(map(short_layer, layers))
        if len({layers for _, layers in self.groups}) == 1:
            return guidance
        return short if len({guidance for guidance, _ in self.groups}) == 1 else f"{guidance}, {short}"

    def common(self) -> str:
        """What is the same in all groups."""
        guidances, sets = {g for g, _ in self.groups}, {layers for _, layers in self.groups}
        parts = [next(iter(guidances))] if len(guidances) == 1 else []
        parts += ["+".join(map(short_layer, next(iter(sets))))] if len(sets) == 1 else []
        return ", ".join([self.solver, *parts])

    def panels(self) -> list[list[Group]]:
        """The groups of each row of curves: a row for each set of layers, the strongest first; one of one perturbation.

        Of many, the best perturbations are kept, and the sets that change the sharpness most.
        """
        names = list(dict.fromkeys(guidance for guidance, _ in self.groups))[:LARGEST_CURVES]
        if len(names) == 1:
            return [list(self.groups)[:LARGEST_CURVES]]
        by_effect = sorted(self.groups, key=lambda group: -self.effect(group))
        sets = list(dict.fromkeys(layers for _, layers in by_effect))[:LARGEST_PANELS]
        return [[(name, layers) for name in names if (name, layers) in self.groups] for layers in sets]

    def effect(self, group: Group) -> float:
        """The largest change of the sharpness in a group."""
        changes = [abs(row.scores["sharpness"].change) for row in self.groups[group].values()]
        return max([0.0, *(change for change in changes if not math.isnan(change))])

    def strongest(self) -> Group:
        """The group that changes the sharpness most."""
        return max(self.groups, key=self.effect)


def heat_map(report: SweepReport, solver: str) -> Figure:
    """A row for each perturbation and set of layers, a column for each scale: change of the quality, and sharpness.

    White is no change, or a sharpness as without PAG; blue is better, or sharper. ValueError where no setting of the
    solver has PAG.
    """
    from matplotlib.figure import Figure

    found = SolverSweep(report, solver)
    if not found.groups:
        raise ValueError(f"a heat map of {solver} needs a setting with PAG")
    # Rows of a perturbation stay together; the best perturbation is first.
    first = list(dict.fromkeys(guidance for guidance, _ in found.groups))
    groups = sorted(list(found.groups)[:LARGEST_MAP], key=lambda group: first.index(group[0]))
    labels = [found.label(group) for group in groups]
    wide, high = max(3.2, 0.68 * len(found.scales)), max(1.2, 0.27 * len(groups))
    side = 0.075 * max(map(len, labels))
    figure = Figure(figsize=(2 * wide + side + 1.2, high + 1.25), dpi=128, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    measure = MEASURES[report.quality]
    changes = _cells(found, groups, lambda row: row.scores[report.quality].change)
    _draw_map(left, changes, found.scales, "RdBu" if measure.higher else "RdBu_r", measure.digits, "+")
    left.set_title(f"change of {measure.label}", fontsize=9, color=_INK)
    sharp = _cells(found, groups, lambda row: row.scores["sharpness"].mean)
    plain = found.plain.scores["sharpness"].mean if found.plain else 1.0
    _draw_map(right, sharp, found.scales, "PuOr", 2, "", plain)
    right.set_title(f"sharpness (without PAG {plain:.2f})", fontsize=9, color=_INK)
    left.set_yticks(range(len(groups)), labels, fontsize=8)
    for number in range(1, len(groups)):
        if groups[number][0] != groups[number - 1][0] and len(groups) > len(first):
            for axes in (left, right):
                axes.axhline(number - 0.5, color=_INK, linewidth=0.8)
    few = f"; the best {len(groups)} of {len(found.groups)}" if len(groups) < len(found.groups) else ""
    figure.suptitle(f"{report.title}; {found.common()}{few}", fontsize=9.5, color=_INK)
    return figure


def curves(report: SweepReport, solver: str) -> Figure:
    """Quality and sharpness against s, a row of panels for each set of layers where perturbations differ.

    A bar is the 95 % interval of the change from s = 0, paired by picture. A dashed line, where it is near, is the
    sharpness of the truth, or of real pictures. ValueError where no setting of the solver has PAG.
    """
    from matplotlib.figure import Figure

    found = SolverSweep(report, solver)
    if not found.groups:
        raise ValueError(f"curves of {solver} need a setting with PAG")
    rows, names = found.panels(), (report.quality, "sharpness")
    high = 3.3 if len(rows) == 1 else 2.2 * len(rows)
    figure = Figure(figsize=(8.4, high + 0.8), dpi=128, facecolor="white", layout="constrained")
    panels = figure.subplots(len(rows), 2, squeeze=False, sharey="col", sharex=True)
    for number, (pair, groups) in enumerate(zip(panels, rows, strict=True), start=1):
        for axes, name in zip(pair, names, strict=True):
            _draw_lines(axes, found, groups, name, of_layers=len(rows) > 1)
            _style(axes, MEASURES[name].label, found.scales, lowest=number == len(rows))
        pair[1].axhline(1.0, color="#666666", linewidth=1.0, linestyle="--")  # the truth's
        if len(rows) > 1:
            pair[0].set_title("+".join(map(short_layer, groups[0][1])), fontsize=9, loc="left", color=_INK)
    for column, name in enumerate(names):
        drawn = [row for groups in rows for group in groups for row in found.groups[group].values()]
        _limit(panels[0, column], [row.scores[name] for row in [*drawn, *([found.plain] if found.plain else [])]])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=8)
    figure.suptitle(f"{report.title}; {found.common()}", fontsize=9.5, color=_INK)
    return figure


def strip(report: SweepReport, solver: str, truth: tuple[str, Picture] | None, *, scales: bool) -> Figure | None:
    """One picture without PAG, then over the scales, or else under each perturbation; None where there is none.

    The layers, and the perturbation of the scales, are those that change the sharpness most; the scale of the
    perturbations is the middle one. `truth`: a picture that stands before them under its name.
    """
    found = SolverSweep(report, solver)
    if not found.groups or found.plain is None or not found.plain.pictures:
        return None
    name, strongest = next(iter(found.plain.pictures)), found.strongest()
    if scales:
        label = found.label(strongest)
        rows = [(f"{label}, s = {s:g}", row) for s, row in sorted(found.groups[strongest].items())]
    else:
        s = found.scales[len(found.scales) // 2]
        of_layers = [(guidance, layers) for guidance, layers in found.groups if layers == strongest[1]]
        rows = [
            (f"{found.label(group)}, s = {s:g}", found.groups[group][s])
            for group in of_layers
            if s in found.groups[group]
        ]
    tiles: list[tuple[str, Any]] = [truth] if truth else []
    shown = [("no PAG", found.plain), *rows]
    tiles += [(label, read_picture(row.pictures[name])) for label, row in shown if name in row.pictures]
    return comparison_figure(tiles)


def _cells(found: SolverSweep, groups: Sequence[Group], of: Any) -> NDArray[np.float64]:
    """A number for each group and scale; NaN where it was not measured."""
    return np.array(
        [
            [of(rows[s]) if s in rows else math.nan for s in found.scales]
            for rows in map(found.groups.get, groups)
            if rows
        ]
    )


def _draw_map(
    axes: Axes,
    cells: NDArray[np.float64],
    scales: Sequence[float],
    colours: str,
    digits: int,
    sign: str,
    middle: float = 0.0,
) -> None:
    """Cells in colours about `middle`, each with its number; the few largest share the darkest colour."""
    finite = np.abs(cells - middle)[np.isfinite(cells)]
    reach = 1.2 * max(float(np.quantile(finite, 0.95)) if finite.size else 0.0, 1e-6)
    image = axes.imshow(cells, cmap=colours, vmin=middle - reach, vmax=middle + reach, aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            red, green, blue, _ = image.to_rgba(np.array([value]))[0]
            ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else _INK
            axes.text(
                column,
                row,
                f"{value:{sign}.{digits}f}" if round(float(value), digits) else "0",
                ha="center",
                va="center",
                fontsize=7.5,
                color=ink,
            )
    axes.set_xticks(range(len(scales)), [f"{s:g}" for s in scales], fontsize=8)
    axes.set_xlabel("scale s", fontsize=8.5, color=_INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_lines(axes: Axes, found: SolverSweep, groups: Sequence[Group], name: str, of_layers: bool) -> None:
    """A line for each group, a little beside each other so that the bars can be told apart."""
    step = 0.012 * max(found.scales)
    for number, group in enumerate(groups):
        rows = ([found.plain] if found.plain else []) + [row for _, row in sorted(found.groups[group].items())]
        shift = (number - (len(groups) - 1) / 2) * step
        scores = [row.scores[name] for row in rows]
        axes.errorbar(
            [row.s + (shift if row.s else 0.0) for row in rows],
            [score.mean for score in scores],
            yerr=[0.0 if math.isnan(score.half) else score.half for score in scores],
            label=group[0] if of_layers else found.label(group),
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKS[number % len(_MARKS)],
            markersize=4,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=2,
        )


def _limit(axes: Axes, scores: Sequence[Score]) -> None:
    """Bars of few pictures reach far: the axis shows them as far beyond the means as the means are apart."""
    low, high = min(score.mean for score in scores), max(score.mean for score in scores)
    reach = max(high - low, 1e-3)
    ends = [(score.mean - score.half, score.mean + score.half) for score in scores if not math.isnan(score.half)]
    least, most = min([low, *(end for end, _ in ends)]), max([high, *(end for _, end in ends)])
    axes.set_ylim(max(least, low - reach) - 0.05 * reach, min(most, high + reach) + 0.05 * reach)


def _style(axes: Axes, label: str, scales: Sequence[float], lowest: bool) -> None:
    axes.set_ylabel(label, fontsize=9, color=_INK)
    axes.set_xticks([0.0, *scales], [f"{s:g}" for s in (0.0, *scales)])
    if lowest:
        axes.set_xlabel("scale s", fontsize=9, color=_INK)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
