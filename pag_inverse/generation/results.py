"""The table of a command's runs: results.csv and results.md."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from pag_inverse.data.files import write_whole
from pag_inverse.generation.plans import SamplePlan
from pag_inverse.generation.recipe import further_guidance
from pag_inverse.generation.scoring import Figures, Reference, figures
from pag_inverse.generation.writing import sampled
from pag_inverse.metrics.distribution import VARIANT
from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.reports.rendering import Table, render
from pag_inverse.storage.run_store import RunStore

# Columns by the name of a figure: the title and the digits.
COLUMNS = {
    "fid": ("FID", 2),
    "paper": ("FID of the paper", 2),
    "inception_score": ("IS", 2),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "lpips_diversity": ("LPIPS between samples", 3),
    "pixel_diversity": ("pixel distance between samples", 1),
    "sharpness": ("sharpness", 2),
}
MEANINGS = (
    f"FID, IS, precision and recall: {VARIANT}.",
    "Distances between samples: the mean over two samples of a prompt or class, without conditions of any two; pixel "
    "distances are root mean squares in levels of 255.",
    "Sharpness: the mean length of the gradient in levels of 255 per pixel.",
)
SETTINGS = ("prior", "sampler", "steps", "s", "cfg")


def write_results(
    plan: SamplePlan,
    runs: Mapping[str, tuple[RunStore, Sequence[str]]],
    networks: MetricNetworks,
    reference: Reference | None,
) -> str:
    """Write both files into the output folder; what to print: the table, what is left out, and where it lies."""
    found: dict[str, dict[str, float | str]] = {}
    for name, (store, names) in runs.items():
        found[name] = {**figures(store, names, networks, reference)}
        if name in plan.paper:
            found[name]["paper"] = plan.paper[name]
    counts = {name: len(sampled(store, names)) for name, (store, names) in runs.items()}
    settings = {name: [str(store.settings[key]) for key in SETTINGS] for name, (store, _) in runs.items()}
    further = {name: further_guidance(store.settings) for name, (store, _) in runs.items()}
    named = list(SETTINGS)
    if any(further.values()):
        named.append("guidance")
        settings = {name: [*cells, further[name]] for name, cells in settings.items()}
    columns = [key for key in COLUMNS if any(isinstance(f.get(key), float) for f in found.values())]
    head = ["run", *named, "pictures", *(COLUMNS[key][0] for key in columns)]
    rows = [
        [name, *settings[name], str(counts[name]), *(_cell(found[name].get(key), COLUMNS[key][1]) for key in columns)]
        for name in runs
    ]
    notices = left_out(list(found.values()))
    text = render("sampling.md.j2", {"results": Table(head, rows), "meanings": MEANINGS, "notices": notices})
    write_whole(plan.output / "results.csv", _csv([head, *rows]))
    write_whole(plan.output / "results.md", text.encode(errors="backslashreplace"))
    return "\n".join([*_aligned([head, *rows]), *notices, f"written to {plan.output / 'results.md'}"])


def left_out(found: Sequence[Figures]) -> list[str]:
    """A line for each reason why a metric has no figure, with the metrics that it concerns."""
    reasons: dict[str, list[str]] = {}
    for figure in found:
        for key, value in figure.items():
            if isinstance(value, str) and COLUMNS[key][0] not in reasons.setdefault(value, []):
                reasons[value].append(COLUMNS[key][0])
    return [f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _cell(value: float | str | None, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else ""


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode(errors="backslashreplace")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
