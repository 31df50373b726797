"""The figures of an evaluation as tables: metrics beside the paper's, costs, notes and settings; and results.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

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
_TWO_DIGITS = ("psnr", "fid", "inception_score", "residual")


def results_csv(report: EvaluationReport) -> str:
    """A line for each run and metric; empty where there is no figure, with the reason in the last column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "paper", "reason"])
    for run in report.runs:
        s = run.settings
        for m in run.metrics:
            figures = [m.n, m.mean, m.low, m.high, m.spread, m.worst, m.best, paper_figure(s, m.name)]
            named = [run.name, s["task"], s["solver"], s["s"], m.name, report.variants.get(m.name, "")]
            writer.writerow([*named, *("" if figure is None else figure for figure in figures), m.reason])
    return text.getvalue()


def results_table(report: EvaluationReport) -> Table:
    """A row for each run: its number of images, every metric, what it cost; sorted by the numbers themselves."""
    head = ["run", "n", *TITLES.values(), *COST_TITLES]
    rows, values = [], []
    for run in report.runs:
        found = {m.name: m for m in run.metrics}
        metrics = [found.get(name, Metric(name)) for name in TITLES]
        first = [run.name, str(max((m.n for m in run.metrics), default=0))]
        rows.append([*first, *(metric_text(m, paper_figure(run.settings, m.name)) for m in metrics), *costs(run)])
        values.append([*first, *("" if m.mean is None else repr(m.mean) for m in metrics), *costs(run)])
    return Table(head, rows, values, "sortable")


def metric_text(metric: Metric, paper: float | None = None) -> str:
    """The mean with half its interval; on further lines what the samples vary and the paper's figure."""
    digits = 2 if metric.name in _TWO_DIGITS else 4
    text = "n/a" if metric.mean is None else f"{metric.mean:.{digits}f}"
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
