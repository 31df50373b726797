"""The report of an evaluation: report.html, one file that opens offline, and report.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pag_inverse.data.arrays import read_saved
from pag_inverse.data.images import Picture, read_picture, to_uint8
from pag_inverse.reports.changes import changes_table
from pag_inverse.reports.contents import EvaluationReport, RunReport
from pag_inverse.reports.explanation_figure import grid_figure
from pag_inverse.reports.figures import residual_figure, to_bytes
from pag_inverse.reports.latex import latex_table
from pag_inverse.reports.rendering import Figure, photograph, plot, render
from pag_inverse.reports.results import notes, results_table, settings_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

INTRODUCTION = (
    "Each mean is followed by its 95 % confidence interval over the images (Student's t). s/image is the time of one "
    "restoration, images/h the throughput of one process with all samples, peak GPU MB the most that "
    "the tensors of a run took."
)


CHANGES = (
    "With PAG minus without, mean over the pictures that both runs have, with its 95 % interval (bootstrap over the "
    "pictures). Above 0 is better for PSNR and SSIM, below 0 for LPIPS; a residual of 1 is that of the noise."
)


def evaluation_markdown(report: EvaluationReport) -> str:
    """report.md: the table of results, the notes and the settings."""
    return render("evaluation.md.j2", _content(report))


def evaluation_page(report: EvaluationReport) -> str:
    """report.html: a table that sorts, pictures and residual curves of each task and solver, the settings."""
    sections = [_section(group) for group in pairs(report.runs)]
    return render("evaluation.html.j2", {**_content(report), "sections": sections, "picture_width": 256})


def evaluation_latex(report: EvaluationReport) -> str:
    """report.tex: the table of results, and what PAG changes."""
    tables = [latex_table(results_table(report), INTRODUCTION)]
    if report.changes:
        tables.append(latex_table(changes_table(report.changes), CHANGES))
    return "\n".join(["% \\usepackage{booktabs}", *tables])


def evaluation_figures(report: EvaluationReport) -> dict[str, MatplotlibFigure]:
    """The figures of each task and solver by name: the residual over the steps, and the pictures of the page."""
    found: dict[str, MatplotlibFigure] = {}
    for pair in pairs(report.runs):
        name = pair[0].name.removesuffix("_pag")
        if (curves := _residual_figure(pair)) is not None:
            found[f"{name}_residual"] = curves
        if shown := shown_images(pair):
            rows = [f"{kind}\n{_label(image_id)}" for kind, image_id in shown.items()]
            columns = ["truth", "measurement", *map(_guidance, pair)]
            cells = [_pictures(pair, image_id) for image_id in shown.values()]
            found[f"{name}_pictures"] = grid_figure(cells, columns, rows, None, ())
    return found


def _label(image_id: str) -> str:
    """An id beside its pictures: short, and with nothing that reads as a formula or cannot be drawn."""
    text = image_id.encode(errors="backslashreplace").decode().replace("$", r"\$")
    return text if len(text) <= 18 else f"{text[:8]}...{text[-7:]}"


def _pictures(pair: Sequence[RunReport], image_id: str) -> list[Picture | None]:
    """Truth, measurement, and each run's restoration of one image, None where it failed."""
    image = pair[-1].images[image_id]
    runs = (run.images.get(image_id) for run in pair)
    restored = [None if own is None else read_picture(own.restoration) for own in runs]
    return [read_picture(image.truth), to_uint8(read_saved(image.measurement)), *restored]


def pairs(runs: Sequence[RunReport]) -> list[list[RunReport]]:
    """Runs that differ in guidance only (their names by a final `_pag`), without PAG first."""
    found: dict[str, list[RunReport]] = {}
    for run in sorted(runs, key=lambda run: run.name):
        found.setdefault(run.name.removesuffix("_pag"), []).append(run)
    return list(found.values())


def shown_images(pair: Sequence[RunReport]) -> dict[str, str]:
    """The ids of the best, median and worst image by the last run's PSNR, of those that every run of the pair has."""
    scored = {i: image.psnr for i, image in pair[-1].images.items() if image.psnr is not None}
    common = {i: psnr for i, psnr in scored.items() if all(i in run.images or i in run.failures for run in pair)}
    ordered = sorted(common, key=lambda i: (-common[i], i))
    if not ordered:
        return {}
    return {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}


def _content(report: EvaluationReport) -> dict[str, Any]:
    return {
        "title": "Evaluation",
        "introduction": INTRODUCTION,
        "results": results_table(report),
        "notes": notes(report),
        "changes": changes_table(report.changes) if report.changes else None,
        "about_changes": CHANGES,
        "settings": settings_tables(report.runs),
    }


def _section(pair: Sequence[RunReport]) -> dict[str, Any]:
    settings = pair[-1].settings
    return {
        "title": f"{str(settings['task']).replace('_', ' ')}, {settings['solver']}",
        "rows": [_row(pair, name, image_id) for name, image_id in shown_images(pair).items()],
        "curves": _curves(pair),
    }


def _row(pair: Sequence[RunReport], name: str, image_id: str) -> list[Figure]:
    """Truth, measurement, and each run's restoration of one image."""
    image = pair[-1].images[image_id]
    figures = [
        photograph(f"{name}: {image_id}", read_picture(image.truth)),
        photograph("measurement", to_uint8(read_saved(image.measurement))),
    ]
    for run in pair:
        own = run.images.get(image_id)
        if own is not None:
            score = "" if own.psnr is None else f" {own.psnr:.1f} dB"
            figures.append(photograph(f"{_guidance(run)}{score}", read_picture(own.restoration)))
    return figures


def _curves(pair: Sequence[RunReport]) -> list[Figure]:
    """The mean residual of each run over the steps as a picture of the page."""
    figure = _residual_figure(pair)
    counts = " and ".join(dict.fromkeys(str(len(run.images)) for run in pair if run.images))
    caption = f"residual of the first samples, mean over {counts} images"
    return [] if figure is None else [plot(caption, to_bytes(figure))]


def _residual_figure(pair: Sequence[RunReport]) -> MatplotlibFigure | None:
    """The mean residual of each run over the steps, beside 1, which is what the noise alone would leave."""
    means = {_guidance(run): _mean_curve(run) for run in pair if run.images}
    if not means:
        return None
    settings = pair[-1].settings
    level = 1.0 if settings["sigma"] and np.isfinite([v for curve in means.values() for v in curve]).all() else None
    return residual_figure(means, level=level, steps=settings.get("steps"))


def _mean_curve(run: RunReport) -> list[float]:
    curves = [image.curve for image in run.images.values()]
    longest = max(map(len, curves))
    return [float(v) for v in np.mean([curve for curve in curves if len(curve) == longest], axis=0)]


def _guidance(run: RunReport) -> str:
    return "with PAG" if run.settings["s"] > 0 else "without PAG"
