"""The page of a comparison: tables with their uncertainty, what PAG changes, and the pictures; one file, offline."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from pag_inverse.cli.ledger import Ledger
from pag_inverse.images import write_whole
from pag_inverse.metrics import psnr, sharpness, ssim
from pag_inverse.statistics import Estimate, estimate, paired_difference

SCORES = {"psnr": "PSNR, dB", "ssim": "SSIM", "sharpness": "sharpness", "residual": "residual"}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #1c1c1c }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } td, th { padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) td { background: #f4f4f2 }
.row { display: flex; gap: 6px; overflow-x: auto; margin-bottom: 10px } figure { margin: 0; flex: 0 0 auto }
figcaption { font-size: 12px; color: #555 } img { width: 160px; display: block } .wide { overflow-x: auto }
"""


def write_page(ledger: Ledger) -> Path:
    """Write `evidence.html` from what is in the folder; its path."""
    tasks = list(dict.fromkeys(entry["task"] for entry in ledger.entries.values()))
    n, side = len(ledger.settings["pictures"]), ledger.settings["size"]
    body = [
        "<h1>Restorations with the embedded priors</h1>",
        f"<p>{n} pictures at {side} px, seed {ledger.settings['seed']}. Beside each mean its 95 % interval over the "
        "pictures (Student's t). Sharpness: mean gradient magnitude over the truth's. Residual: "
        "||y - A x|| / (sigma sqrt m) over what was measured; about 1 is right. Methods with PAG are named _pag.</p>",
        *(section(ledger, task) for task in tasks),
    ]
    page = f"<!doctype html><meta charset='utf-8'><title>Evidence</title><style>{STYLE}</style>{''.join(body)}"
    write_whole(ledger.folder / "evidence.html", page.encode())
    return ledger.folder / "evidence.html"


def section(ledger: Ledger, task: str) -> str:
    methods = list(dict.fromkeys(e["method"] for e in ledger.entries.values() if e["task"] == task))
    tuned = {m: ledger.tuned.get(f"{task}.{m}") for m in methods}
    notes = ", ".join(f"{m} {v}" for m, v in tuned.items() if v is not None)
    return (
        f"<h2>{html.escape(task.replace('_', ' '))}</h2>"
        f"{quality(ledger, task, methods)}{changes(ledger, task, methods)}"
        f"<p>Tuned on training pictures: {html.escape(notes or 'nothing')}.</p>{rows(ledger, task, methods)}"
    )


def quality(ledger: Ledger, task: str, methods: Sequence[str]) -> str:
    """One line a method; a second for the mean of its samples, with what a single one loses against it."""
    lines = []
    for method in methods:
        first = [e for e in of(ledger, task, method) if e["sample"] == 0]
        lines.append([method, str(len(first)), *(str(estimate([e[s] for e in first])) for s in SCORES), ""])
        means = mean_scores(ledger, task, method)
        if means:
            count = min(m["samples"] for m in means)
            loss = paired_difference([m["psnr"] for m in means], [m["single_psnr"] for m in means])
            exact = 10 * np.log10(2 / (1 + 1 / count))
            said = f"{loss} above one sample (exact posterior: {exact:.2f})"
            scored = [str(estimate([m[s] for m in means])) if s in means[0] else "" for s in SCORES]
            lines.append([f"{method}, mean of {count}", str(len(means)), *scored, said])
    return table(["method", "n", *SCORES.values(), ""], lines)


def mean_scores(ledger: Ledger, task: str, method: str) -> list[dict[str, Any]]:
    """The mean of all samples of each picture that has several, scored from the saved pictures."""
    found = []
    for picture in ledger.settings["pictures"]:
        entries = [e for e in of(ledger, task, method) if e["picture"] == picture]
        if len(entries) > 1:
            mean = mean_picture(ledger, entries)
            truth = np.asarray(PIL.Image.open(ledger.truth(picture)))
            singles = float(np.mean([e["psnr"] for e in entries]))
            scored = {"psnr": psnr(mean, truth), "ssim": ssim(mean, truth), "sharpness": sharpness(mean, truth)}
            found.append({**scored, "samples": len(entries), "single_psnr": singles})
    return found


def mean_picture(ledger: Ledger, entries: Sequence[dict[str, Any]]) -> Any:
    pictures = [np.asarray(PIL.Image.open(ledger.folder / e["file"])) for e in entries]
    return np.rint(np.mean(pictures, axis=0)).astype(np.uint8)


def changes(ledger: Ledger, task: str, methods: Sequence[str]) -> str:
    """What PAG changes in a single sample, picture by picture."""
    lines = []
    for method in methods:
        if f"{method}_pag" in methods:
            plain = {e["picture"]: e for e in of(ledger, task, method) if e["sample"] == 0}
            guided = {e["picture"]: e for e in of(ledger, task, f"{method}_pag") if e["sample"] == 0}
            both = sorted(set(plain) & set(guided))
            if both:
                found: list[Estimate] = [
                    paired_difference([guided[p][s] for p in both], [plain[p][s] for p in both]) for s in SCORES
                ]
                lines.append([f"{method}: with PAG minus without", str(len(both)), *(f"{e}" for e in found)])
    return table(["", "n", *SCORES.values()], lines) if lines else ""


def rows(ledger: Ledger, task: str, methods: Sequence[str]) -> str:
    parts = []
    for picture in ledger.settings["pictures"]:
        figures = [figure("truth", np.asarray(PIL.Image.open(ledger.truth(picture))))]
        for method in methods:
            entries = [e for e in of(ledger, task, method) if e["picture"] == picture]
            for entry in entries[:1]:
                image = np.asarray(PIL.Image.open(ledger.folder / entry["file"]))
                figures.append(figure(f"{method} {entry['psnr']:.1f} dB", image))
            if len(entries) > 1:
                figures.append(figure(f"mean of {len(entries)}", mean_picture(ledger, entries)))
        parts.append(f"<div class='row'>{''.join(figures)}</div>")
    return "".join(parts)


def figure(title: str, picture: Any) -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, format="JPEG", quality=90)
    source = base64.b64encode(buffer.getvalue()).decode()
    return f"<figure><img src='data:image/jpeg;base64,{source}'><figcaption>{html.escape(title)}</figcaption></figure>"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in line)}</tr>" for line in lines)
    return (
        f"<div class='wide'><table><tr>{''.join(f'<th>{html.escape(h)}</th>' for h in head)}</tr>{cells}</table></div>"
    )


def of(ledger: Ledger, task: str, method: str) -> list[dict[str, Any]]:
    entries = [e for e in ledger.entries.values() if e["task"] == task and e["method"] == method]
    return sorted(entries, key=lambda e: (e["picture"], e["sample"]))
