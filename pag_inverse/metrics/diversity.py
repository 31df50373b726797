"""How different the pictures of one prompt, class or prior are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
LARGEST_GROUP = 8  # pictures of a group that are compared: 28 pairs


def mean_pairwise(groups: Iterable[Sequence[Picture]], distance: Callable[[Picture, Picture], float]) -> float | None:
    """The mean over groups of the mean distance of two pictures of a group; None where no group has two."""
    means = []
    for group in groups:
        pairs = list(itertools.combinations(group[:LARGEST_GROUP], 2))
        if pairs:
            means.append(float(np.mean([distance(a, b) for a, b in pairs])))
    return float(np.mean(means)) if means else None


def pixel_distance(a: Picture, b: Picture) -> float:
    """The root mean square difference of two pictures (H, W, 3), uint8, in levels of 255."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))
