"""The noise level of a measurement, estimated from the measurement itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators import Blur, Clip, Compose, Crop, Grayscale, Identity, Inpainting, Operator, SuperResolution

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDING = 1 / (127.5 * math.sqrt(12))  # the deviation of rounding to 8 bits, on [-1, 1]: 0.0023
WINDOW, NEAREST = 5, 4  # the side of windows; the pixels of a group, itself and its nearest measured neighbours
SHARE, MOST, FEWEST = 40, 2**17, 200  # vectors an entry of a covariance; vectors that are read; measured pixels
KEPT = 0.99  # of the windows of a flat picture that count as smooth
PICTURES = (Blur, Clip, Crop, Grayscale, Identity, Inpainting, SuperResolution)  # operators that give pictures
_APART = 1.5  # between one estimate of all channels and one a channel: their noise is not independent


def estimate_sigma(y: Any, known: Mask | None = None) -> float:
    """The standard deviation of white noise in a measurement y (C, H, W) on [-1, 1], on the same range.

    The windows of a picture vary in few directions, white noise varies in all of them: the least eigenvalues of their
    covariance are sigma^2 (Chen, Zhu and Heng, ICCV 2015). The largest group of them counts whose mean is not above
    its median. Windows of 5 x 5 pixels hold all channels, whose fine detail is nearly the same; those count that are as
    smooth as noise alone can be, and hold no white or black that cuts noise off.

    `known` (H, W) marks what was measured. Where few windows are measured whole, groups of 4 near pixels take their
    place. The least result is ROUNDING. ValueError: less than FEWEST pixels.
    """
    planes = np.asarray(y, dtype=np.float64)
    known = np.ones(planes.shape[1:], dtype=np.bool_) if known is None else np.asarray(known, dtype=np.bool_)
    if known.sum() < FEWEST:
        raise ValueError(f"{known.sum()} measured pixels are too few to estimate sigma from; give --sigma")
    if all(np.array_equal(plane[known], planes[0][known]) for plane in planes[1:]):
        planes = planes[:1]  # grey in three channels
    windows = _windows(planes, known)
    if len(windows) < SHARE * windows.shape[1]:
        return max(math.sqrt(_variance(_groups(planes, known), len(planes))), ROUNDING)
    variance = _variance(windows, len(planes))
    if len(planes) > 1:  # JPEG and cameras smooth the colours: there is less noise in some than in each channel
        each = float(np.mean([_variance(windows[:, c :: len(planes)], 1) for c in range(len(planes))]))
        variance = each if each > _APART**2 * variance else variance
    return max(math.sqrt(variance), ROUNDING)


def _variance(vectors: Floats, channels: int) -> float:
    """The variance of noise that is independent in all entries of vectors: of those as smooth as noise may be.

    What noise may be and its variance are found by turns; SHARE vectors an entry count at least.
    """
    from scipy.stats import chi2

    vectors = _unclipped(vectors)
    if len(vectors) <= vectors.shape[1]:
        return 0.0
    pixels = vectors.reshape(len(vectors), -1, channels)
    spread = np.square(pixels - pixels.mean(axis=1, keepdims=True)).sum(axis=(1, 2))
    freedom = (pixels.shape[1] - 1) * channels
    limit = chi2.ppf(KEPT, freedom)
    lost = chi2.cdf(limit, freedom + 2) / KEPT  # the share of the variance that is left without the tail
    fewest = min(SHARE * vectors.shape[1], len(spread))
    least = np.partition(spread, fewest - 1)[fewest - 1]
    variance = _least(vectors)
    for _ in range(10):
        before = variance
        variance = min(before, _least(vectors[spread <= max(limit * before, least)]) / lost)
        if variance > 0.999 * before:
            break
    return variance


def _unclipped(vectors: Floats) -> Floats:
    """The vectors without white and black, where noise is cut; where those are few, all that are not so throughout."""
    limits = np.abs(vectors) >= 1
    clean = ~limits.any(axis=1)
    if np.abs(vectors).max(initial=0.0) <= 1 and clean.sum() >= SHARE * vectors.shape[1]:
        return vectors[clean]
    return vectors[~limits.all(axis=1)]


def _windows(planes: Floats, known: Mask) -> Floats:
    """Windows that were measured whole, (N, WINDOW^2 C)."""
    if min(known.shape) < WINDOW:
        return np.empty((0, WINDOW**2 * len(planes)))
    sides = (WINDOW, WINDOW)
    whole: Mask = np.asarray(np.lib.stride_tricks.sliding_window_view(known, sides).all(axis=(2, 3)))
    step = math.ceil(math.sqrt(whole.size / MOST))
    found = np.lib.stride_tricks.sliding_window_view(planes, sides, axis=(1, 2))[:, ::step, ::step]
    return found.transpose(1, 2, 3, 4, 0)[whole[::step, ::step]].reshape(-1, WINDOW**2 * len(planes))


def _groups(planes: Floats, known: Mask) -> Floats:
    """Each measured pixel with its nearest measured neighbours, (N, NEAREST C)."""
    from scipy.spatial import cKDTree

    places = np.argwhere(known)
    values = planes[:, known].T
    step = math.ceil(len(places) / MOST)
    _, near = cKDTree(places).query(places[::step], k=NEAREST)
    return np.asarray(values[near].reshape(len(near), -1))


def _least(vectors: Floats) -> float:
    """The mean of the largest group of least eigenvalues of the covariance whose mean is not above its median."""
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors, rowvar=False)).clip(min=0)
    for count in range(len(eigenvalues), 1, -1):
        mean = float(eigenvalues[:count].mean())
        if mean <= np.median(eigenvalues[:count]):
            return mean
    return float(eigenvalues[0])


def is_estimable(operator: Operator) -> bool:
    """Whether measurements by an operator are pictures, so that sigma can be estimated from them."""
    if isinstance(operator, Compose):
        return is_estimable(operator.outer) and is_estimable(operator.inner)
    return isinstance(operator, PICTURES)


def sigma_of(y: Tensor, operator: Operator) -> float | None:
    """`estimate_sigma` of one measurement y (1, C, H, W); None where the operator gives no pictures, or few pixels."""
    known = operator.observation_mask(y)[0].amax(dim=0) > 0
    if not is_estimable(operator) or int(known.sum()) < FEWEST:
        return None
    return estimate_sigma(y[0].double().cpu().numpy(), known.cpu().numpy())


def describe_sigma(sigma: float, how: str = "as sigma") -> str:
    """An estimate with its unit, and how another value is given."""
    rounding = ", the rounding to 8 bits" if sigma <= ROUNDING else ""
    return (
        f"sigma is estimated: {sigma:.4f} on the [-1, 1] range ({127.5 * sigma:.1f} of 255{rounding}); "
        f"give another one {how}"
    )
