"""The page of a comparison: every method's scores with intervals, what PAG changes, and the pictures; one file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pag_inverse.data.images import Picture, read_picture
from pag_inverse.metrics.paired import psnr, sharpness, ssim
from pag_inverse.metrics.statistics import Estimate, estimate, paired_difference
from pag_inverse.reports.contents import ComparisonReport, Restoration
from pag_inverse.reports.rendering import Figure, Table, photograph, render

SCORES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "sharpness": "sharpness", "residual": "residual"}
DIGITS = {"psnr": 2, "ssim": 3, "lpips": 3, "sharpness": 2, "residual": 2}
CLASSICAL = ("total_variation", "biharmonic")  # which the others are compared with
NOT_PRIORS = ("measurement", "bicubic", "wiener", "richardson_lucy", "autoencoder", *CLASSICAL)
Scored = Mapping[str, Mapping[str, float]]  # scores by picture
Distance = Callable[[Picture, Picture], float]


@dataclass(frozen=True)
class Mean:
    """The mean of several samples of one picture; `single_psnr` is the mean PSNR of the samples."""

    picture: Picture
    scores: Mapping[str, float]
    samples: int
    single_psnr: float


def comparison_page(report: ComparisonReport, lpips: Distance | None = None) -> str:
    """The page, from the saved restorations; with `lpips` the means of several samples get an LPIPS, too."""
    content = {
        "title": "Restorations with the embedded priors",
        "pictures": len(report.truths),
        "size": report.size,
        "seed": report.seed,
        "about_lpips": report.about_lpips,
        "picture_width": 160,
        "sections": [TaskSection(report, task, lpips).content() for task in report.tasks],
    }
    return render("comparison.html.j2", content)


class TaskSection:
    """One task: what every method scores, what is better than what, and the pictures."""

    def __init__(self, report: ComparisonReport, task: str, lpips: Distance | None) -> None:
        self.report, self.task, self.lpips = report, task, lpips
        found = report.tasks[task]
        self.scores = [name for name in SCORES if any(name in r.scores for r in found)]
        self.of: dict[str, list[Restoration]] = {method: [] for method in dict.fromkeys(r.method for r in found)}
        for restoration in sorted(found, key=lambda r: (r.picture, r.sample)):
            self.of[restoration.method].append(restoration)
        self.first = {m: {r.picture: r.scores for r in rs if r.sample == 0} for m, rs in self.of.items()}
        self.means = {m: means for m in self.of if (means := self._means_of(m))}

    def content(self) -> dict[str, Any]:
        return {
            "title": self.task.replace("_", " "),
            "quality": self.quality(),
            "changes": self.changes(),
            "tuning": self.tuning(),
            "rows": [self.row(picture) for picture in self.report.truths],
        }

    def quality(self) -> Table:
        """One line a method; a second for the mean of its samples, with what it gains over a single one."""
        lines = []
        for method, first in self.first.items():
            lines.append([method, str(len(first)), *self._estimates(list(first.values())), ""])
            if method in self.means:
                means = list(self.means[method].values())
                count = min(mean.samples for mean in means)
                scores = self._estimates([mean.scores for mean in means])
                lines.append([f"{method}, mean of {count}", str(len(means)), *scores, _gain(means, count)])
        return Table(["method", "n", *(SCORES[name] for name in self.scores), "mean against one sample"], lines)

    def changes(self) -> Table:
        """Differences picture by picture: what PAG changes in a single sample, and priors against classical methods."""
        lines = []
        for method, first in self.first.items():
            if f"{method}_pag" in self.first:
                lines.append(self._difference(f"{method}: with PAG minus without", self.first[f"{method}_pag"], first))
        for reference in (m for m in CLASSICAL if m in self.first):
            before = self.first[reference]
            for method in (m for m in self.first if m not in NOT_PRIORS):
                lines.append(self._difference(f"{method} minus {reference}", self.first[method], before))
                if method in self.means:
                    after = {picture: mean.scores for picture, mean in self.means[method].items()}
                    lines.append(self._difference(f"{method}, mean of several, minus {reference}", after, before))
        return Table(["difference", "n", *(SCORES[name] for name in self.scores)], [line for line in lines if line])

    def tuning(self) -> str:
        if self.task.startswith("denoising"):
            return "Total variation has the weight that is best for each picture, which is known from the truth only."
        tuned = {m: self.report.tuned.get(f"{self.task}.{m}") for m in self.of}
        said = ", ".join(f"{method} {value}" for method, value in tuned.items() if value is not None)
        return f"Tuned on training pictures: {said or 'nothing'}."

    def row(self, picture: str) -> list[Figure]:
        """The truth, then each method's first sample and the mean of its samples."""
        figures = [photograph("truth", read_picture(self.report.truths[picture]))]
        for method, found in self.of.items():
            for first in [r for r in found if r.picture == picture][:1]:
                figures.append(photograph(f"{method} {first.scores['psnr']:.1f} dB", read_picture(first.file)))
            if mean := self.means.get(method, {}).get(picture):
                figures.append(photograph(f"mean of {mean.samples}", mean.picture))
        return figures

    def _means_of(self, method: str) -> dict[str, Mean]:
        """The mean of all samples of each picture that has several, scored from the saved pictures."""
        found = {}
        for picture, file in self.report.truths.items():
            samples = [r for r in self.of[method] if r.picture == picture]
            if len(samples) > 1:
                mean = np.rint(np.mean([read_picture(r.file) for r in samples], axis=0)).astype(np.uint8)
                truth = read_picture(file)
                scores = {"psnr": psnr(mean, truth), "ssim": ssim(mean, truth), "sharpness": sharpness(mean, truth)}
                if self.lpips is not None:
                    scores["lpips"] = self.lpips(mean, truth)
                single = float(np.mean([r.scores["psnr"] for r in samples]))
                found[picture] = Mean(mean, scores, len(samples), single)
        return found

    def _estimates(self, scored: Sequence[Mapping[str, float]]) -> list[str]:
        """A text for each score that all have; else it is empty."""
        return [
            _text(estimate([scores[name] for scores in scored]), DIGITS[name])
            if scored and all(name in scores for scores in scored)
            else ""
            for name in self.scores
        ]

    def _difference(self, name: str, after: Scored, before: Scored) -> list[str]:
        """A line of the table; empty where no picture has both."""
        both = sorted(set(after) & set(before))
        told = []
        for score in self.scores if both else ():
            known = all(score in scores[picture] for picture in both for scores in (after, before))
            pairs = [[scores[p][score] for p in both] for scores in (after, before)] if known else None
            told.append(_text(paired_difference(*pairs), DIGITS[score], "+") if pairs else "")
        return [name, str(len(both)), *told] if both else []


def _gain(means: Sequence[Mean], count: int) -> str:
    """What the mean of samples gains in PSNR; of an exact posterior it would be 10 log10(2 / (1 + 1 / count))."""
    gain = paired_difference([mean.scores["psnr"] for mean in means], [mean.single_psnr for mean in means])
    return f"{_text(gain, 2, '+')} dB (exact posterior: {10 * math.log10(2 / (1 + 1 / count)):+.2f})"


def _text(found: Estimate, digits: int, sign: str = "") -> str:
    half = "" if math.isnan(found.half) else f" ± {found.half:.{digits}f}"
    return f"{found.mean:{sign}.{digits}f}{half}"
