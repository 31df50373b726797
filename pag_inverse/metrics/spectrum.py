"""Power spectra of pictures, and how far two sets of pictures are apart by them: no network is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Vectors = NDArray[np.float64]
BANDS, LEAST_SIDE = 8, 32  # rings of spatial frequency, and the side in pixels that they need
ROUNDING = 1 / 12  # the power of rounding to levels of 8 bits: below it nothing is told
RESAMPLES = 200


def band_powers(picture: Picture) -> Vectors:
    """The power of the luminance in 8 rings of spatial frequency, (8,), in dB of squared levels of 255.

    The rings are equally wide from 0, without the mean, to 0.5 cycles a pixel; a Hann window is applied. White noise of
    standard deviation sigma has 10 log10(sigma^2 + 1/12) in each. A picture (H, W, 3), uint8, below 32 pixels is a
    ValueError.
    """
    height, width = picture.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise ValueError(f"a spectrum needs a picture of {LEAST_SIDE} pixels a side, not {width} x {height}")
    luminance = picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    window = np.outer(np.hanning(height), np.hanning(width))
    centred = luminance - (window * luminance).sum() / window.sum()
    power = np.abs(np.fft.fft2(window * centred)) ** 2 / (window**2).sum()
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    rings = np.floor(radius / (0.5 / BANDS)).astype(int)
    inside = (rings < BANDS) & (radius > 0)
    total = np.bincount(rings[inside], power[inside], BANDS) / np.bincount(rings[inside], minlength=BANDS)
    return np.asarray(10 * np.log10(total + ROUNDING))


def gaussian_distance(a: Vectors, b: Vectors) -> float:
    """The 2-Wasserstein distance of the Gaussians that fit two sets of vectors (N, D): the root of Fréchet's.

    d^2 = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^(1/2) C_b C_a^(1/2))^(1/2)), in the unit of the vectors. Fewer than 2
    vectors in a set are a ValueError.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"sets of {len(a)} and {len(b)} pictures; a covariance needs at least 2")
    root = _root(np.cov(a, rowvar=False))
    cross = _root(root @ np.cov(b, rowvar=False) @ root)
    square = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.cov(a, rowvar=False).trace() + np.cov(b, rowvar=False).trace()
    return float(np.sqrt(max(square - 2 * cross.trace(), 0.0)))


def spectral_distance(pictures: Sequence[Picture], real: Sequence[Picture]) -> float:
    """`gaussian_distance` of the band powers of two sets of pictures, in dB; 0 for equal sets."""
    return gaussian_distance(*(np.stack([band_powers(picture) for picture in side]) for side in (pictures, real)))


def half_interval_of_change(after: Vectors, before: Vectors, real: Vectors, seed: int = 0) -> float:
    """Half the 95 % interval of the change of `gaussian_distance` to `real` from `before` to `after`, by bootstrap.

    Row i of `after` and of `before` (N, D) are of one picture: they are drawn together.
    """
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(after), size=len(after)) for _ in range(RESAMPLES))
    changes = [gaussian_distance(after[i], real) - gaussian_distance(before[i], real) for i in draws]
    return float(1.96 * np.std(changes, ddof=1))


def _root(matrix: Vectors) -> Vectors:
    """The symmetric root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T)
