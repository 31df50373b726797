"""Means with their uncertainty over pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """The mean of n numbers and half the width of its 95 % interval; the latter is NaN for n = 1."""

    mean: float
    half: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if math.isnan(self.half) else f"{self.mean:.2f} ± {self.half:.2f}"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent numbers and its 95 % interval of Student's t; ValueError where there are none."""
    n = len(values)
    if n == 0:
        raise ValueError("no numbers to average")
    array = np.asarray(values, dtype=np.float64)
    half = float(stats.t.ppf(0.975, n - 1) * array.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Estimate(float(array.mean()), half, n)


def paired_difference(after: Sequence[float], before: Sequence[float]) -> Estimate:
    """The mean of after - before over the same pictures in the same order; ValueError where their numbers differ."""
    if len(after) != len(before):
        raise ValueError(f"{len(after)} and {len(before)} numbers cannot be paired")
    return estimate([a - b for a, b in zip(after, before, strict=True)])


def bootstrap_interval(values: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of independent numbers; ValueError where there are none."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0:
        raise ValueError("no numbers to average")
    rng = np.random.default_rng(seed)
    means = [array[rng.integers(len(array), size=len(array))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
