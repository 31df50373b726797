"""The figures of an evaluation as tables: metrics beside the paper's, costs, notes and settings; and results.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pag_inverse.metrics.statistics import estimate
from pag_inverse.metrics.summary import Metric
from pag_inverse.reports.contents import EvaluationReport, RunReport
from pag_inverse.reports.paper import paper_figure, paper_note
from pag_inverse.reports.rendering import Table

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
COST_TITLES = ("s/image", "images/h", "peak GPU MB")
COLUMNS = ("run", "task", "solver", "pag", "metric", "variant", "n", "mean", "low", "high", "spread", "worst", "best")
NO_FIGURE = "n/a"
_TWO_DIGITS = ("psnr", "fid", "inception_score", "residual")


def results_csv(report: EvaluationReport) -> str:
    """A line for each run and metric; empty where there is no figure, with the reason in the last column.

    Lines of the measurements themselves come before their task's first run; they have no solver.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "paper", "reason"])
    first = _measured(report)
    for run in report.runs:
        s = run.settings
        for m in first[run.name].measurement if run.name in first else ():
            figures = [m.n, m.mean, m.low, m.high, m.spread, m.worst, m.best, None]
            named = [_measured_name(run), s["task"], "", "", m.name, report.variants.get(m.name, "")]
            writer.writerow([*named, *("" if figure is None else figure for figure in figures), m.reason])
        for m in run.metrics:
            figures = [m.n, m.mean, m.low, m.high, m.spread, m.worst, m.best, paper_figure(s, m.name)]
            named = [run.name, s["task"], s["solver"], s["s"], m.name, report.variants.get(m.name, "")]
            writer.writerow([*named, *("" if figure is None else figure for figure in figures), m.reason])
    return text.getvalue()


def results_table(report: EvaluationReport) -> Table:
    """A row for each run: its number of images, every metric, what it cost; sorted by the numbers themselves.

    A row of the measurements themselves comes before their task's first run. Columns without a figure are left out.
    """
    head = ["run", "n", *TITLES.values(), *COST_TITLES]
    rows, values = [], []
    first = _measured(report)
    for run in report.runs:
        if run.name in first:
            texts, numbers = _metric_cells(run.measurement)
            named = [_measured_name(run), *_count(run.measurement)]
            rows.append([*named, *("" if text == NO_FIGURE else text for text in texts), *[""] * len(COST_TITLES)])
            values.append([*named, *numbers, *[""] * len(COST_TITLES)])
        texts, numbers = _metric_cells(run.metrics, run.settings)
        named = [run.name, *_count(run.metrics)]
        rows.append([*named, *texts, *costs(run)])
        values.append([*named, *numbers, *costs(run)])
    kept = [c for c in range(len(head)) if c < 2 or any(row[c] not in ("", NO_FIGURE) for row in rows)]
    head, *rows_and_values = ([row[c] for c in kept] for row in (head, *rows, *values))
    return Table(head, rows_and_values[: len(rows)], rows_and_values[len(rows) :], "sortable")


def _metric_cells(metrics: Sequence[Metric], settings: Mapping[str, Any] | None = None) -> tuple[list[str], list[str]]:
    """The text of every metric, beside the paper's where `settings` are given, and what it sorts by."""
    found = {m.name: m for m in metrics}
    all_of = [found.get(name, Metric(name)) for name in TITLES]
    texts = [metric_text(m, None if settings is None else paper_figure(settings, m.name)) for m in all_of]
    return texts, ["" if m.mean is None else repr(m.mean) for m in all_of]


def _count(metrics: Sequence[Metric]) -> list[str]:
    return [str(max((m.n for m in metrics), default=0))]


def _measured(report: EvaluationReport) -> dict[str, RunReport]:
    """The runs before which a row of their measurements stands: the first with just these, by name."""
    found: dict[tuple[object, ...], RunReport] = {}
    for run in report.runs:
        if any(m.mean is not None for m in run.measurement):
            found.setdefault((run.settings["task"], *((m.n, m.mean) for m in run.measurement)), run)
    return {run.name: run for run in found.values()}


def _measured_name(run: RunReport) -> str:
    return f"measurement of {run.settings['task']}"


def digits_of(name: str) -> int:
    """The decimal digits of a metric."""
    return 2 if name in _TWO_DIGITS else 4


def metric_text(metric: Metric, paper: float | None = None) -> str:
    """The mean with half its interval; on further lines what the samples vary and the paper's figure."""
    digits = digits_of(metric.name)
    text = NO_FIGURE if metric.mean is None else f"{metric.mean:.{digits}f}"
    if metric.mean is not None and metric.high is not None:
        text += f" ± {metric.high - metric.mean:.{digits}f}"
    if metric.spread is not None:
        text += f"\n(samples: std {metric.spread:.{digits}f}, {metric.worst:.{digits}f} to {metric.best:.{digits}f})"
    return text if paper is None else f"{text}\n(paper {paper:g})"


def costs(run: RunReport) -> list[str]:
    """Seconds for one restoration, images an hour of one process with all samples, peak memory where it is known."""
    images = list(run.images.values())
    if not images:
        return ["", "", ""]
    seconds = estimate([image.seconds for image in images]).mean
    each = max(estimate([image.seconds * image.samples for image in images]).mean, 1e-9)
    peaks = [image.peak_memory_mb for image in images if image.peak_memory_mb is not None]
    return [f"{seconds:.2f}", f"{3600 / each:.0f}", f"{max(peaks):.0f}" if peaks else ""]


def notes(report: EvaluationReport) -> list[str]:
    """What a reader must know: how each metric is computed, why one is missing, what failed, remarks on the paper's."""
    variants = _said_once([(TITLES.get(name, name), variant) for name, variant in report.variants.items()])
    missing = [m for run in report.runs for m in run.metrics if m.reason]
    reasons = _said_once([(f"{TITLES.get(m.name, m.name)} n/a", m.reason) for m in missing])
    failed = [
        f"{run.name}: {image_id} failed: {reason}."
        for run in report.runs
        for image_id, reason in run.failures.items()
    ]  # fmt: skip
    remarks = dict.fromkeys(note for run in report.runs if (note := paper_note(run.settings)))
    return [*variants, *reasons, *failed, *remarks]


def settings_tables(runs: Sequence[RunReport]) -> list[Table]:
    """First the settings that all runs share, one a line; then those that differ, a line for each run."""
    columns = [{key: str(value) for key, value in run.settings.items()} for run in runs]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    own = [key for key in keys if len({column.get(key, "") for column in columns}) > 1]
    same = Table(["setting", "all runs"], [[key, columns[0][key]] for key in keys if key not in own], kind="settings")
    rows = [[run.name, *(column.get(key, "") for key in own)] for run, column in zip(runs, columns, strict=True)]
    return [same, *([Table(["run", *own], rows, kind="settings")] if own else [])]


def _said_once(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A sentence for each text, after the names that it is said of."""
    said: dict[str, dict[str, None]] = {}
    for name, text in pairs:
        said.setdefault(text, {})[name] = None
    return [f"{', '.join(names)}: {text}." for text, names in said.items()]
