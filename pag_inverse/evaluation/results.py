"""From what an evaluation saved to its report: tables, pages and figures in its root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pag_inverse.data.files import write_whole
from pag_inverse.evaluation.entries import readable_runs
from pag_inverse.evaluation.scores import compare_runs, read_any_scores, restored, summarise_measurements, summarise_run
from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.reports.contents import Change, EvaluationReport, ImageResult, RunReport
from pag_inverse.reports.evaluation import evaluation_figures, evaluation_latex, evaluation_markdown, evaluation_page
from pag_inverse.reports.figures import save
from pag_inverse.reports.results import results_csv
from pag_inverse.storage.entries import Entry
from pag_inverse.storage.run_store import RunStore

FIGURES = "figures"


def write_report(stores: Sequence[RunStore], networks: MetricNetworks) -> Path:
    """Write the report into the root of the runs, of these and of every other that lies there; the page's path.

    It is results.csv, report.md, report.tex, report.html, and a PNG and a PDF of each figure in figures/.
    """
    root, own = stores[0].root, {store.folder for store in stores}
    whole = [*stores, *(store for store in readable_runs(root) if store.folder not in own)]
    runs = [_run_report(store, networks) for store in whole]
    report = EvaluationReport(runs, networks.variants(), _changes(whole, networks.lpips_net))
    texts = {
        "results.csv": results_csv,
        "report.md": evaluation_markdown,
        "report.tex": evaluation_latex,
        "report.html": evaluation_page,
    }
    for name, text in texts.items():
        write_whole(root / name, text(report).encode(errors="backslashreplace"))
    (root / FIGURES).mkdir(exist_ok=True)
    for name, figure in evaluation_figures(report).items():
        for kind in ("png", "pdf"):
            save(figure, root / FIGURES / f"{name}.{kind}")
    return root / "report.html"


def _changes(stores: Sequence[RunStore], lpips_net: str) -> list[Change]:
    """What PAG changes in each pair of runs that have pictures in common."""
    named = {store.name: store for store in stores}
    found = []
    for name, store in named.items():
        guided = named.get(f"{name}_pag")
        if guided is not None and restored(store).keys() & restored(guided).keys():
            try:
                found.append(Change(name, compare_runs(store, guided, lpips_net)))
            except ValueError:  # runs of other inputs are not compared
                continue
    return found


def _run_report(store: RunStore, networks: MetricNetworks) -> RunReport:
    scores = read_any_scores(store)
    images = {i: _image_result(store, entry, scores.get(i, [])) for i, entry in restored(store).items()}
    metrics, measurement = summarise_run(store, networks), summarise_measurements(store, networks)
    return RunReport(store.name, store.settings, metrics, images, store.failures(), measurement)


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
