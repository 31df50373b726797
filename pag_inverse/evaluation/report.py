"""The report of an evaluation: its figures as report.md and results.csv; the page is beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pag_inverse.evaluation.scores import Metric
from pag_inverse.storage.saved import SavedCell
from pag_inverse.metrics.statistics import estimate

TITLES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "residual": "residual",
    "fid": "FID",
    "kid": "KID",
    "inception_score": "IS",
    "precision": "precision",
    "recall": "recall",
}
# FFHQ 256, 1000 images: Table 4 (PSLD) and Table 8 (DPS), FID and LPIPS without PAG, then with it.
PAPER = {
    ("box_inpainting", "psld"): ((43.11, 0.167), (21.13, 0.149)),
    ("super_resolution", "psld"): ((42.98, 0.360), (38.57, 0.354)),
    ("gaussian_deblur", "psld"): ((41.53, 0.221), (37.08, 0.343)),
    ("motion_deblur", "psld"): ((93.39, 0.450), (40.26, 0.397)),
    ("box_inpainting", "dps"): ((33.12, 0.168), (26.74, 0.212)),
    ("super_resolution", "dps"): ((34.00, 0.320), (34.05, 0.327)),
    ("gaussian_deblur", "dps"): ((44.05, 0.257), (29.42, 0.259)),
    ("motion_deblur", "dps"): ((39.92, 0.242), (30.57, 0.283)),
}
PASTED = (
    "The published PSLD program pastes known pixels of the clean image into its box results, and the paper's box row "
    "probably contains that; nothing is pasted here, so an honest figure reads worse."
)
INTRODUCTION = (
    "Beside each mean its 95 % interval over the images (Student's t). s/image is the time of one restoration; "
    "images/h what one process restores, with all samples; peak MB the most that a process held."
)
COLUMNS = ("cell", "task", "solver", "pag", "metric", "variant", "n", "mean", "low", "high", "spread", "worst", "best")
Results = Mapping[SavedCell, Sequence[Metric]]


def paper_figure(settings: Mapping[str, Any], metric: str) -> float | None:
    """The paper's figure where task, solver, data set and rows are the paper's."""
    pair = PAPER.get((settings["task"], settings["solver"]))
    if pair is None or settings["images"] != "ffhq" or settings["dataset"] != "ffhq" or metric not in ("fid", "lpips"):
        return None
    return pair[settings["s"] > 0][metric == "lpips"]


def settings_of(cell: SavedCell) -> dict[str, Any]:
    settings = cell.settings()
    if settings is None:
        raise ValueError(f"{cell.folder}: its settings are damaged")
    return settings


def results_csv(results: Results, variants: Mapping[str, str]) -> str:
    """A line a cell and metric; empty where there is no figure, and then the reason."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "paper", "reason"])
    for cell, metrics in results.items():
        s = settings_of(cell)
        for m in metrics:
            figures = [m.n, m.mean, m.low, m.high, m.spread, m.worst, m.best, paper_figure(s, m.name)]
            named = [cell.name, s["task"], s["solver"], s["s"], m.name, variants[m.name]]
            writer.writerow([*named, *("" if f is None else f for f in figures), m.reason])
    return text.getvalue()


def markdown(results: Results, variants: Mapping[str, str]) -> str:
    titles = ["cell", "n", *TITLES.values(), *COST_TITLES]
    figures = [[cell.name, str(count(metrics)), *cells_of(cell, metrics)] for cell, metrics in results.items()]
    parts = [
        "# Evaluation",
        INTRODUCTION,
        _md_table(titles, figures),
        *notes(results, variants),
        "## Settings",
        *(_md_table(head, rows) for head, rows in settings_tables(list(results))),
    ]
    return "\n\n".join(parts) + "\n"


def cells_of(cell: SavedCell, metrics: Sequence[Metric]) -> list[str]:
    """A row's texts: every metric, then what it cost."""
    settings, by_name = settings_of(cell), {m.name: m for m in metrics}
    shown = [text_of(by_name[name], paper_figure(settings, name)) for name in TITLES]
    return [*shown, *costs(cell)]


def text_of(metric: Metric, paper: float | None) -> str:
    if metric.mean is None:
        text = "n/a"
    else:
        digits = 2 if metric.name in ("psnr", "fid", "inception_score", "residual") else 4
        text = f"{metric.mean:.{digits}f}"
        if metric.high is not None and metric.n > 1:
            text += f" ± {metric.high - metric.mean:.{digits}f}"
        if metric.spread is not None:
            text += f" (samples: std {metric.spread:.{digits}f}, {metric.worst:.{digits}f} to {metric.best:.{digits}f})"
    return text if paper is None else f"{text} (paper {paper:g})"


COST_TITLES = ("s/image", "images/h", "peak MB")


def costs(cell: SavedCell) -> list[str]:
    """Seconds for one restoration, images an hour of one process with all their samples, largest peak memory."""
    entries = [e for e in cell.entries()[0].values() if "error" not in e]
    if not entries:
        return ["", "", ""]
    seconds = estimate([e["seconds"] for e in entries]).mean
    each = max(sum(e["seconds"] * len(e["residual"]) for e in entries) / len(entries), 1e-9)
    return [f"{seconds:.2f}", f"{3600 / each:.0f}", f"{max(e['peak_memory_mb'] for e in entries):.0f}"]


def count(metrics: Sequence[Metric]) -> int:
    return max(m.n for m in metrics)


def notes(results: Results, variants: Mapping[str, str]) -> list[str]:
    """What a reader must know: how each metric is computed, why one is missing, what failed."""
    found = _said_once([(TITLES[name], variant) for name, variant in variants.items()])
    reasons = _said_once([(f"{TITLES[m.name]} n/a", m.reason) for ms in results.values() for m in ms if m.reason])
    failed = [
        f"{cell.name}: {image_id} failed: {entry['error']}."
        for cell in results
        for image_id, entry in cell.entries()[0].items()
        if "error" in entry
    ]
    box = any(
        settings_of(c)["task"] == "box_inpainting" and settings_of(c)["solver"] == "psld" and _published(c)
        for c in results
    )
    return [*found, *reasons, *failed, *([PASTED] if box else [])]


def _said_once(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A sentence for each text, after the names that it is said of."""
    said: dict[str, dict[str, None]] = {}
    for name, text in pairs:
        said.setdefault(text, {})[name] = None
    return [f"{', '.join(names)}: {text}." for text, names in said.items()]


def _published(cell: SavedCell) -> bool:
    return paper_figure(settings_of(cell), "fid") is not None


def settings_tables(cells: Sequence[SavedCell]) -> list[tuple[list[str], list[list[str]]]]:
    """Head and rows: what every cell has the same, a line each; then a line a cell with what differs."""
    columns = [{key: str(value) for key, value in settings_of(cell).items()} for cell in cells]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    shared = [key for key in keys if len({column.get(key, "") for column in columns}) == 1]
    own = [key for key in keys if key not in shared]
    same = (["setting", "of every cell"], [[key, columns[0][key]] for key in shared])
    lines = [[cell.name, *(column.get(key, "") for key in own)] for cell, column in zip(cells, columns, strict=True)]
    return [same, *([(["cell", *own], lines)] if own else [])]


def _md_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([text.replace("|", "\\|") for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
