"""A metric of a whole run with its uncertainty, and the difference of two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pag_inverse.metrics.statistics import bootstrap_interval, estimate

PAIRED = ("psnr", "ssim", "lpips", "residual")
HIGHER_IS_BETTER = ("psnr", "ssim")
Scores = Mapping[str, Sequence[Mapping[str, float]]]  # image id -> the metrics of each sample


@dataclass(frozen=True)
class Metric:
    """The mean over n images with its 95 % interval; or the reason why there is none.

    Of several samples an image counts with their mean; `spread` is their mean standard deviation, `worst` and `best`
    are the means over images of each one's worst and best sample.
    """

    name: str
    n: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    spread: float | None = None
    worst: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Difference:
    """The mean over n images of what run B has more than run A, with its 95 % bootstrap interval."""

    name: str
    n: int
    mean: float
    low: float
    high: float


def summarise(name: str, scores: Scores, reason: str = "no images") -> Metric:
    """A metric over the images that have it; `reason` where none does."""
    by_image = [[sample[name] for sample in samples if name in sample] for samples in scores.values()]
    images = [values for values in by_image if values]
    if not images:
        return Metric(name, reason=reason)
    found = estimate([float(np.mean(samples)) for samples in images])
    low, high = (None, None) if found.n == 1 else (found.mean - found.half, found.mean + found.half)
    if max(map(len, images)) == 1:
        return Metric(name, found.n, found.mean, low, high)
    spread = float(np.mean([np.std(samples, ddof=1) for samples in images if len(samples) > 1]))
    least, most = (float(np.mean([pick(samples) for samples in images])) for pick in (min, max))
    worst, best = (least, most) if name in HIGHER_IS_BETTER else (most, least)
    return Metric(name, found.n, found.mean, low, high, spread=spread, worst=worst, best=best)


def difference(name: str, before: Scores, after: Scores) -> Difference | None:
    """What `after` has more than `before`, over the images that both have; None where there are none."""
    values = [
        float(np.mean([s[name] for s in after[i]]) - np.mean([s[name] for s in before[i]]))
        for i in before
        if i in after and all(name in s for s in (*before[i], *after[i]))
    ]
    return Difference(name, len(values), float(np.mean(values)), *bootstrap_interval(values)) if values else None
