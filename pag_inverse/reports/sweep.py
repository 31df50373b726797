"""A sweep over guidance as tables: every setting, the best first, in Markdown, CSV and LaTeX (Tables 9 and 10)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pag_inverse.reports.latex import latex_table
from pag_inverse.reports.rendering import Table, render


@dataclass(frozen=True)
class Measure:
    """A measure's label, the digits that are shown, and whether more of it is better; None: 1 is right."""

    label: str
    digits: int
    higher: bool | None


MEASURES: Mapping[str, Measure] = {
    "psnr": Measure("PSNR, dB", 2, True),
    "ssim": Measure("SSIM", 3, True),
    "lpips": Measure("LPIPS", 3, False),
    "fid": Measure("FID", 2, False),
    "spectrum": Measure("spectral distance, dB", 2, False),
    "sharpness": Measure("sharpness", 3, None),
    "residual": Measure("residual", 2, None),
}


@dataclass(frozen=True)
class Score:
    """A mean over pictures, or a number of all of them; what it changed from the same solver without PAG.

    `half` is half the 95 % interval of the change, paired by picture. What is not known is NaN.
    """

    mean: float
    change: float = math.nan
    half: float = math.nan


@dataclass(frozen=True)
class SweepRow:
    """A setting: `guidance` names perturbation and combination, `n` pictures were made; `pictures` are PNG by name."""

    solver: str
    guidance: str
    layers: tuple[str, ...]
    s: float
    n: int
    scores: Mapping[str, Score]
    pictures: Mapping[str, Path]


@dataclass(frozen=True)
class SweepReport:
    """The settings that were measured, and the measure of MEASURES that ranks them."""

    title: str
    quality: str
    rows: Sequence[SweepRow]
    notes: Sequence[str] = ()

    def ranked(self) -> list[SweepRow]:
        """The settings, the best first."""
        sign = -1.0 if MEASURES[self.quality].higher else 1.0
        return sorted(self.rows, key=lambda row: (sign * row.scores[self.quality].mean, row.s, row.layers))

    def solvers(self) -> list[str]:
        """The solvers in their order."""
        return list(dict.fromkeys(row.solver for row in self.rows))


def sweep_table(report: SweepReport) -> Table:
    """A row for each setting; the quality with its change from s = 0."""
    names = [name for name in MEASURES if all(name in row.scores for row in report.rows)]
    names.sort(key=lambda name: name != report.quality)
    head = ["rank", "solver", "perturbation", "layers", "s", "n", *_heads(names, report.quality)]
    return Table(head, [_cells(rank, row, names, report.quality) for rank, row in enumerate(report.ranked(), start=1)])


def sweep_markdown(report: SweepReport) -> str:
    """ranking.md: the table and its notes."""
    return render("sweep.md.j2", {"title": report.title, "results": sweep_table(report), "notes": report.notes})


def sweep_csv(report: SweepReport) -> str:
    """ranking.csv: every score with its change and half the interval of it, in full."""
    names = [name for name in MEASURES if any(name in row.scores for row in report.rows)]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(
        ["rank", "solver", "perturbation", "layers", "s", "n"]
        + [f"{name}{part}" for name in names for part in ("", "_change", "_half_interval")]
    )
    for rank, row in enumerate(report.ranked(), start=1):
        scores = [row.scores.get(name, Score(math.nan)) for name in names]
        numbers = [_number(value) for score in scores for value in (score.mean, score.change, score.half)]
        writer.writerow([rank, row.solver, row.guidance, "+".join(row.layers), f"{row.s:g}", row.n, *numbers])
    return buffer.getvalue()


def sweep_latex(report: SweepReport) -> str:
    """ranking.tex: the table for a paper, with booktabs' rules."""
    table = sweep_table(report)
    columns = "r" + "l" * 3 + "r" * (len(table.head) - 4)
    return "% \\usepackage{booktabs}\n" + latex_table(table, columns=columns)


def short_layer(name: str) -> str:
    """A layer by diffusers' name in a few letters: `up_blocks.1.attentions.0` is up.1.0, `mid_block...` is mid."""
    parts = name.split(".")
    if parts[0] == "mid_block":
        return "mid"
    numbers = [part for part in parts[1:4] if part.isdecimal()]
    return ".".join([parts[0].removesuffix("_blocks"), *numbers])


def _heads(names: Sequence[str], quality: str) -> list[str]:
    found = []
    for name in names:
        found += [MEASURES[name].label, *(["change from s = 0"] if name == quality else [])]
    return found


def _cells(rank: int, row: SweepRow, names: Sequence[str], quality: str) -> list[str]:
    layers = " + ".join(row.layers)
    cells = [str(rank), row.solver, row.guidance or "no PAG", layers, f"{row.s:g}", str(row.n)]
    for name in names:
        score, digits = row.scores[name], MEASURES[name].digits
        cells.append(f"{score.mean:.{digits}f}")
        if name == quality:
            cells.append(change_text(score, digits))
    return cells


def change_text(score: Score, digits: int) -> str:
    """A change with half its interval, where they are known."""
    if math.isnan(score.change):
        return ""
    change = round(score.change, digits) + 0.0  # no -0
    return f"{change:+.{digits}f}" + ("" if math.isnan(score.half) else f" ± {score.half:.{digits}f}")


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
