"""A metric of a whole run: its mean with an interval, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


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
