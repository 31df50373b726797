"""The page of an evaluation: one file that opens offline, with a table that sorts and pictures inside."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from pag_inverse.experiments.comparison_page import STYLE, figure
from pag_inverse.evaluation.report import (
    COST_TITLES,
    INTRODUCTION,
    TITLES,
    Results,
    cells_of,
    costs,
    count,
    notes,
    settings_of,
    settings_tables,
)
from pag_inverse.evaluation.scores import Metric, read_scores
from pag_inverse.data.images import to_uint8
from pag_inverse.reports.figures import residual_curve
from pag_inverse.storage.saved import SavedCell

OWN_STYLE = """
table.sortable td { white-space: nowrap }
th[data-sorts] { cursor: pointer } th[data-sorts]:after { content: " \\2195"; color: #999 }
img { max-width: 44vw; image-rendering: auto } .curve img { width: 300px; max-width: 90vw }
thead th { border-bottom: 1px solid #999; vertical-align: bottom } table.settings { font-size: 12px }
@media (max-width: 600px) { body { margin: .5rem auto; padding: 0 .5rem; font-size: 13px } .row img { width: 130px } }
"""
SCRIPT = """
document.querySelectorAll("table.sortable th").forEach((head, column) => head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], up = head.dataset.order !== "up";
  head.parentNode.querySelectorAll("th").forEach(other => delete other.dataset.order);
  head.dataset.order = up ? "up" : "down";
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => a === "" ? 1 : b === "" ? -1
    : (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
  [...body.rows].sort((a, b) => compare(value(a), value(b))).forEach(row => body.append(row));
}));
"""


def page(results: Results, variants: Mapping[str, str]) -> str:
    """The whole page."""
    cells = list(results)
    body = [
        f"<h1>Evaluation</h1><p>{html.escape(INTRODUCTION)} A click on a title sorts.</p>",
        results_table(results),
        "".join(f"<p>{html.escape(note)}</p>" for note in notes(results, variants)),
        *(pictures(pair) for pair in pairs(cells)),
        "<h2>Settings</h2>",
        *(table(head, rows, kind="settings") for head, rows in settings_tables(cells)),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Evaluation</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{STYLE}{OWN_STYLE}</style></head><body>{''.join(body)}<script>{SCRIPT}</script></body></html>"
    )


def results_table(results: Results) -> str:
    head = ["cell", "n", *TITLES.values(), *COST_TITLES]
    rows = [[cell.name, str(count(ms)), *cells_of(cell, ms)] for cell, ms in results.items()]
    values = [[cell.name, str(count(ms)), *_values(ms), *costs(cell)] for cell, ms in results.items()]
    return table(head, rows, values, kind="sortable")


def _values(metrics: Sequence[Metric]) -> list[str]:
    by_name = {m.name: m.mean for m in metrics}
    return ["" if by_name[name] is None else repr(by_name[name]) for name in TITLES]


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], values: Sequence[Sequence[str]] | None = None, kind: str = ""
) -> str:
    """A table; `values` are what its cells sort by."""
    sorts = " data-sorts" if values else ""
    lines = [
        "".join(
            f"<td{f' data-value={html.escape(values[i][j])!r}' if values else ''}>{html.escape(text)}</td>"
            for j, text in enumerate(row)
        )
        for i, row in enumerate(rows)
    ]
    heads = "".join(f"<th{sorts}>{html.escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class='wide'><table class='{kind}'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def pairs(cells: Sequence[SavedCell]) -> list[list[SavedCell]]:
    """Cells that differ in guidance only, without PAG first."""
    found: dict[str, list[SavedCell]] = {}
    for cell in sorted(cells, key=lambda c: c.name):
        found.setdefault(cell.name.removesuffix("_pag"), []).append(cell)
    return list(found.values())


def pictures(pair: Sequence[SavedCell]) -> str:
    """Best, median and worst image by the PSNR of the last cell, then the mean residual curves."""
    last = settings_of(pair[-1])
    title = f"<h2>{html.escape(last['task'].replace('_', ' '))}, {html.escape(last['solver'])}</h2>"
    entries = [cell.entries()[0] for cell in pair]
    scores = {i: s[0]["psnr"] for i, s in read_any_scores(pair[-1]).items() if all(i in e for e in entries)}
    ordered = sorted(scores, key=lambda i: (-scores[i], i))
    if not ordered:
        return title + "<p>No restored images.</p>"
    picks = {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}
    return title + "".join(row(pair, name, image_id) for name, image_id in picks.items()) + curves(pair)


def row(pair: Sequence[SavedCell], name: str, image_id: str) -> str:
    """Truth, measurement, and each cell's restoration of one image."""
    entry = pair[-1].entries()[0][image_id]
    y = np.load(pair[-1].root / entry["files"]["measurement"]["path"])
    figures = [
        figure(f"{name}: {image_id}", pair[-1].picture(entry, "truth")),
        figure("measurement", to_uint8(y)),
    ]
    for cell in pair:
        own, score = cell.entries()[0][image_id], read_any_scores(cell).get(image_id)
        if score and "error" not in own:
            label = "with PAG" if settings_of(cell)["s"] > 0 else "without PAG"
            figures.append(figure(f"{label} {score[0]['psnr']:.1f} dB", cell.picture(own, "restoration0")))
    return f"<div class='row'>{''.join(figures)}</div>"


def curves(pair: Sequence[SavedCell]) -> str:
    """The mean residual over the steps, beside 1, which is what the noise alone would leave."""
    figures = []
    for cell in pair:
        found = [e["curve"] for e in cell.entries()[0].values() if "error" not in e]
        if found:
            mean = [float(v) for v in np.mean(found, axis=0)]
            level = 1.0 if settings_of(cell)["sigma"] and all(math.isfinite(v) for v in mean) else None
            figures.append(figure(f"{cell.name}: mean over {len(found)} images", residual_curve(mean, level=level)))
    return f"<div class='row curve'>{''.join(figures)}</div>"


def read_any_scores(cell: SavedCell) -> dict[str, list[dict[str, float]]]:
    """Scores whichever LPIPS network they were made with: PSNR is the same."""
    return read_scores(cell, "vgg") or read_scores(cell, "alex")
