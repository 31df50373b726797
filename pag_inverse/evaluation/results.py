"""From what an evaluation saved to its report: results.csv, report.md and report.html in its root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pag_inverse.data.files import write_whole
from pag_inverse.evaluation.entries import readable_runs
from pag_inverse.evaluation.scores import read_any_scores, restored, summarise_run
from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.reports.contents import EvaluationReport, ImageResult, RunReport
from pag_inverse.reports.evaluation import evaluation_markdown, evaluation_page
from pag_inverse.reports.results import results_csv
from pag_inverse.storage.entries import Entry
from pag_inverse.storage.run_store import RunStore


def write_report(stores: Sequence[RunStore], networks: MetricNetworks) -> Path:
    """Write the three files into the root of the runs, of these and of every other that lies there; the page's path."""
    root, own = stores[0].root, {store.folder for store in stores}
    others = [store for store in readable_runs(root) if store.folder not in own]
    report = EvaluationReport([_run_report(store, networks) for store in (*stores, *others)], networks.variants())
    texts = {"results.csv": results_csv, "report.md": evaluation_markdown, "report.html": evaluation_page}
    for name, text in texts.items():
        write_whole(root / name, text(report).encode(errors="backslashreplace"))
    return root / "report.html"


def _run_report(store: RunStore, networks: MetricNetworks) -> RunReport:
    scores = read_any_scores(store)
    images = {i: _image_result(store, entry, scores.get(i, [])) for i, entry in restored(store).items()}
    return RunReport(store.name, store.settings, summarise_run(store, networks), images, store.failures())


def _image_result(store: RunStore, entry: Entry, scores: Sequence[Mapping[str, float]]) -> ImageResult:
    return ImageResult(
        psnr=scores[0]["psnr"] if scores else None,
        seconds=entry["seconds"],
        samples=len(entry["residual"]),
        peak_memory_mb=entry["peak_memory_mb"],
        curve=[float("nan") if value is None else value for value in entry["curve"]],
        truth=store.path(entry, "truth"),
        measurement=store.path(entry, "measurement"),
        restoration=store.path(entry, "restoration0"),
    )
