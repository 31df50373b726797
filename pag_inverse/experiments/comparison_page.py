"""The page of a comparison: tables with their uncertainty, what PAG changes, and the pictures; one file, offline."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from pag_inverse.storage.ledger import Ledger, read_png
from pag_inverse.data.images import write_whole
from pag_inverse.metrics.paired import psnr, sharpness, ssim
from pag_inverse.metrics.perceptual import Lpips
from pag_inverse.metrics.statistics import estimate, paired_difference

Scored = Mapping[str, Mapping[str, Any]]  # scores by picture
SCORES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "sharpness": "sharpness", "residual": "residual"}
CLASSICAL = ("total_variation", "biharmonic")  # which the others are compared with
NOT_PRIORS = ("measurement", "bicubic", "wiener", "richardson_lucy", "autoencoder", *CLASSICAL)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #1c1c1c }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } td, th { padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) td { background: #f4f4f2 }
.row { display: flex; gap: 6px; overflow-x: auto; margin-bottom: 10px } figure { margin: 0; flex: 0 0 auto }
figcaption { font-size: 12px; color: #555 } img { width: 160px; display: block } .wide { overflow-x: auto }
"""


def write_page(ledger: Ledger, lpips: Lpips | None = None, about_lpips: str = "") -> Path:
    """Write `evidence.html` from what is in the folder; its path. `about_lpips` is a sentence of the page."""
    if lpips is not None:
        ledger.score("lpips", lpips)
    tasks = list(dict.fromkeys(entry["task"] for entry in ledger.entries.values()))
    n, side = len(ledger.settings["pictures"]), ledger.settings["size"]
    body = [
        "<h1>Restorations with the embedded priors</h1>",
        f"<p>{n} pictures at {side} px, seed {ledger.settings['seed']}. Beside each mean its 95 % interval over the "
        "pictures (Student's t). Sharpness: mean gradient magnitude over the truth's. Residual: "
        "||y - A x|| / (sigma sqrt m) over what was measured; about 1 is right, and what the autoencoder's round trip "
        "of the truth has is what its error implies for PSLD. Methods with PAG are named _pag. "
        f"{html.escape(about_lpips)}</p>",
        *(Section(ledger, task, lpips).html() for task in tasks),
    ]
    page = f"<!doctype html><meta charset='utf-8'><title>Evidence</title><style>{STYLE}</style>{''.join(body)}"
    write_whole(ledger.folder / "evidence.html", page.encode())
    return ledger.folder / "evidence.html"


class Section:
    """One task: what every method scores, what is better than what, and the pictures."""

    def __init__(self, ledger: Ledger, task: str, lpips: Lpips | None) -> None:
        self.ledger, self.task, self.lpips = ledger, task, lpips
        self.scores = {name: said for name, said in SCORES.items() if name != "lpips" or lpips is not None}
        entries = [e for e in ledger.entries.values() if e["task"] == task]
        self.methods = list(dict.fromkeys(e["method"] for e in entries))
        self.of = {
            m: sorted((e for e in entries if e["method"] == m), key=lambda e: (e["picture"], e["sample"]))
            for m in self.methods
        }
        self.first = {m: {e["picture"]: e for e in self.of[m] if e["sample"] == 0} for m in self.methods}
        self.means = {m: found for m in self.methods if (found := self.mean_scores(m))}

    def html(self) -> str:
        return (
            f"<h2>{html.escape(self.task.replace('_', ' '))}</h2>{self.quality()}{self.changes()}"
            f"<p>{html.escape(self.tuning())}</p>{self.rows()}"
        )

    def tuning(self) -> str:
        if self.task.startswith("denoising"):
            return "Total variation has the weight that is best for each picture, which only the truth tells."
        tuned = {m: self.ledger.tuned.get(f"{self.task}.{m}") for m in self.methods}
        notes = ", ".join(f"{m} {v}" for m, v in tuned.items() if v is not None)
        return f"Tuned on training pictures: {notes or 'nothing'}."

    def quality(self) -> str:
        """One line a method; a second for the mean of its samples, with what a single one loses against it."""
        lines = []
        for method in self.methods:
            first = list(self.first[method].values())
            lines.append([method, str(len(first)), *(str(estimate([e[s] for e in first])) for s in self.scores), ""])
            means = list(self.means.get(method, {}).values())
            if means:
                count = min(m["samples"] for m in means)
                loss = paired_difference([m["psnr"] for m in means], [m["single_psnr"] for m in means])
                exact = 10 * np.log10(2 / (1 + 1 / count))
                said = f"{loss} above one sample (exact posterior: {exact:.2f})"
                scored = [str(estimate([m[s] for m in means])) if s in means[0] else "" for s in self.scores]
                lines.append([f"{method}, mean of {count}", str(len(means)), *scored, said])
        return table(["method", "n", *self.scores.values(), ""], lines)

    def mean_scores(self, method: str) -> dict[str, dict[str, Any]]:
        """The mean of all samples of each picture that has several, scored from the saved pictures."""
        found = {}
        for picture in self.ledger.settings["pictures"]:
            entries = [e for e in self.of[method] if e["picture"] == picture]
            if len(entries) > 1:
                mean, truth = self.mean_picture(entries), read_png(self.ledger.truth(picture))
                singles = float(np.mean([e["psnr"] for e in entries]))
                scored = {"psnr": psnr(mean, truth), "ssim": ssim(mean, truth), "sharpness": sharpness(mean, truth)}
                if self.lpips is not None:
                    scored["lpips"] = self.lpips(mean, truth)
                found[picture] = {**scored, "samples": len(entries), "single_psnr": singles}
        return found

    def mean_picture(self, entries: Sequence[dict[str, Any]]) -> Any:
        pictures = [read_png(self.ledger.folder / e["file"]) for e in entries]
        return np.rint(np.mean(pictures, axis=0)).astype(np.uint8)

    def changes(self) -> str:
        """Differences picture by picture: what PAG changes in a single sample, and priors against classical methods."""
        lines = []
        for method in self.methods:
            if f"{method}_pag" in self.methods:
                pag = self.first[f"{method}_pag"]
                lines.append(self.difference(f"{method}: with PAG minus without", pag, self.first[method]))
        for reference in (m for m in CLASSICAL if m in self.methods):
            for method in (m for m in self.methods if m not in NOT_PRIORS):
                lines.append(self.difference(f"{method} minus {reference}", self.first[method], self.first[reference]))
                if method in self.means:
                    named = f"{method}, mean of several, minus {reference}"
                    lines.append(self.difference(named, self.means[method], self.first[reference]))
        kept = [line for line in lines if line]
        return table(["", "n", *self.scores.values()], kept) if kept else ""

    def difference(self, name: str, after: Scored, before: Scored) -> list[str]:
        """A line of the table; empty where no picture has both."""
        both = sorted(set(after) & set(before))
        if not both:
            return []
        told = []
        for s in self.scores:
            known = all(s in scores[p] for p in both for scores in (after, before))
            change = paired_difference([after[p][s] for p in both], [before[p][s] for p in both]) if known else ""
            told.append(str(change))
        return [name, str(len(both)), *told]

    def rows(self) -> str:
        parts = []
        for picture in self.ledger.settings["pictures"]:
            figures = [figure("truth", read_png(self.ledger.truth(picture)))]
            for method in self.methods:
                entries = [e for e in self.of[method] if e["picture"] == picture]
                for entry in entries[:1]:
                    image = read_png(self.ledger.folder / entry["file"])
                    figures.append(figure(f"{method} {entry['psnr']:.1f} dB", image))
                if len(entries) > 1:
                    figures.append(figure(f"mean of {len(entries)}", self.mean_picture(entries)))
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
