"""The page of a comparison: every method's scores and costs, differences with intervals, and the pictures; one file."""

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
COSTS = ("passes, forward + backward; of the autoencoder", "seconds", "CPU seconds")
DIGITS = {"psnr": 2, "ssim": 3, "lpips": 3, "sharpness": 2, "residual": 2}
CLASSICAL = ("total_variation", "biharmonic")  # which the others are compared with
PAG = "_pag"  # the end of a method's name
FEW_METHODS = 8  # of which the page shows every picture
NOT_PRIORS = ("measurement", "bicubic", "wiener", "richardson_lucy", "autoencoder", *CLASSICAL)
Scored = Mapping[str, Mapping[str, float]]  # scores by picture
Distance = Callable[[Picture, Picture], float]


@dataclass(frozen=True)
class Mean:
    """The mean of several samples of one picture, with the passes and costs of all of them.

    `single_psnr` is the mean PSNR of the samples.
    """

    picture: Picture
    scores: Mapping[str, float]
    samples: int
    single_psnr: float
    passes: Mapping[str, float]
    costs: Mapping[str, float]


def sections_of(report: ComparisonReport, lpips: Distance | None = None) -> list[TaskSection]:
    """A section for each task; with `lpips` the means of several samples get an LPIPS, too."""
    return [TaskSection(report, task, lpips) for task in report.tasks]


def comparison_page(report: ComparisonReport, sections: Sequence[TaskSection]) -> str:
    """The page, from the saved restorations."""
    content = {
        "title": "Restorations with the embedded priors",
        "pictures": len(report.truths),
        "size": report.size,
        "seed": report.seed,
        "about_lpips": report.about_lpips,
        "notes": report.notes,
        "picture_width": 160,
        "sections": [section.content() for section in sections],
    }
    return render("comparison.html.j2", content)


class TaskSection:
    """One task: what every method scores and costs, what is better than what, and the pictures."""

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
        few, shown = len(self.of) <= FEW_METHODS, next(iter(self.report.truths))
        return {
            "title": self.task.replace("_", " "),
            "quality": self.quality(),
            "differences": self.differences(),
            "tuning": self.tuning(),
            "strip": self.strip(shown),
            "rows": [self.row(picture) for picture in (self.report.truths if few else [])],
        }

    def quality(self) -> Table:
        """One line a method; a second for the mean of its samples, with what it gains over a single one."""
        lines = []
        for method, first in self.first.items():
            singles = [r for r in self.of[method] if r.sample == 0]
            lines.append([method, str(len(first)), *self._estimates(list(first.values())), *costs_text(singles), ""])
            if method in self.means:
                means = list(self.means[method].values())
                scores = self._estimates([mean.scores for mean in means])
                name, gain = f"{method}, {self.mean_name(method)}", _gain(means, self.count(method))
                lines.append([name, str(len(means)), *scores, *costs_text(means), gain])
        head = ["method", "n", *(SCORES[name] for name in self.scores), *COSTS, "mean against one sample"]
        return Table(head, lines)

    def differences(self) -> list[tuple[str, Table]]:
        """Paired by picture: what PAG changes in each solver, and every method against the references."""
        pairs = [(m, f"{m}{PAG}") for m in self.first if f"{m}{PAG}" in self.first]
        found = [("With PAG minus without", [self._both(after, before, before) for before, after in pairs])]
        solvers = [m for m in self.first if m not in NOT_PRIORS]
        for reference in (self.report.reference, *CLASSICAL):
            if reference in self.first:
                lines = [self._both(method, reference, method) for method in solvers if method != reference]
                found.append((f"Minus {reference}", lines))
        head = ["method", "n", *(SCORES[name] for name in self.scores)]
        tables = [(title, Table(head, [line for both in lines for line in both])) for title, lines in found]
        return [(title, table) for title, table in tables if table.rows]

    def _both(self, method: str, reference: str, name: str) -> list[list[str]]:
        """A line of one sample against one sample, and one of the means; against a single result where it has one."""
        lines = [self._difference(name, self.first[method], self.first[reference])]
        if method in self.means:
            several = self.scores_of_means(reference) or self.first[reference]
            lines.append(self._difference(f"{name}, {self.mean_name(method)}", self.scores_of_means(method), several))
        return [line for line in lines if line]

    def scores_of_means(self, method: str) -> Scored:
        """The scores of the mean of its samples, by picture."""
        return {picture: mean.scores for picture, mean in self.means.get(method, {}).items()}

    def count(self, method: str) -> int:
        """How many samples a mean has, at least."""
        return min(mean.samples for mean in self.means[method].values())

    def mean_name(self, method: str) -> str:
        """What the mean of its samples is called."""
        return f"mean of {self.count(method)}"

    def tuning(self) -> str:
        if self.task.startswith("denoising"):
            return "Total variation has the weight that is best for each picture, which is known from the truth only."
        tuned = {m: self.report.tuned.get(f"{self.task}.{m}") for m in self.of}
        said = ", ".join(f"{method} {value}" for method, value in tuned.items() if value is not None)
        return f"Tuned on training pictures: {said or 'nothing'}."

    def strip(self, picture: str) -> list[Figure]:
        """The truth and each method's first sample, side by side."""
        figures = [photograph("truth", read_picture(self.report.truths[picture]))]
        return figures + [f for method in self.of for f in self._first_figure(method, picture)]

    def row(self, picture: str) -> list[Figure]:
        """The truth, then each method's first sample and the mean of its samples."""
        figures = [photograph("truth", read_picture(self.report.truths[picture]))]
        for method in self.of:
            figures += self._first_figure(method, picture)
            if mean := self.means.get(method, {}).get(picture):
                figures.append(photograph(f"mean of {mean.samples}", mean.picture))
        return figures

    def _first_figure(self, method: str, picture: str) -> list[Figure]:
        found = [r for r in self.of[method] if r.picture == picture][:1]
        return [photograph(f"{method} {r.scores['psnr']:.1f} dB", read_picture(r.file)) for r in found]

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
                passes, costs = total([r.passes for r in samples]), total([r.costs for r in samples])
                found[picture] = Mean(mean, scores, len(samples), single, passes, costs)
        return found

    def _estimates(self, scored: Sequence[Mapping[str, float]]) -> list[str]:
        """A text for each score that all have; else it is empty."""
        return [
            text(estimate([scores[name] for scores in scored]), DIGITS[name])
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
            told.append(text(paired_difference(*pairs), DIGITS[score], "+") if pairs else "")
        return [name, str(len(both)), *told] if both else []


def _gain(means: Sequence[Mean], count: int) -> str:
    """What the mean of samples gains in PSNR; of an exact posterior it would be 10 log10(2 / (1 + 1 / count))."""
    gain = paired_difference([mean.scores["psnr"] for mean in means], [mean.single_psnr for mean in means])
    return f"{text(gain, 2, '+')} dB (exact posterior: {10 * math.log10(2 / (1 + 1 / count)):+.2f})"


def text(found: Estimate, digits: int, sign: str = "") -> str:
    """A mean with half of its interval, where it has one."""
    half = "" if math.isnan(found.half) else f" ± {found.half:.{digits}f}"
    return f"{found.mean:{sign}.{digits}f}{half}"


def total(counted: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sum of each number that all have."""
    names = [name for name in counted[0] if all(name in one for one in counted)]
    return {name: sum(one[name] for one in counted) for name in names}


def costs_text(found: Sequence[Restoration] | Sequence[Mean]) -> list[str]:
    """Passes and seconds of one picture, averaged over the pictures; empty where they are not known."""
    costs = total([one.costs for one in found]) if found else {}
    seconds = [f"{costs[name] / len(found):.2f}" if name in costs else "" for name in ("seconds", "cpu_seconds")]
    return [passes_text([one.passes for one in found]), *seconds]


def passes_text(counted: Sequence[Mapping[str, float]]) -> str:
    """Forward + backward passes of the network; after a semicolon those of the autoencoder, where it has any."""
    passes = {name: round(count / len(counted)) for name, count in total(counted).items()} if counted else {}
    if not passes:
        return ""
    networks = [(passes.get(f"{of}forward", 0), passes.get(f"{of}backward", 0)) for of in ("", "autoencoder_")]
    return "; ".join(f"{forward} + {backward}" for forward, backward in networks if forward or backward)
