"""Paired image metrics, computed from what was saved: 8-bit RGB pictures, data range 255."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def psnr(picture: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio in dB of two pictures (H, W, 3), uint8; infinite where they are equal."""
    error = np.mean((picture.astype(np.float64) - truth.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(picture: Picture, truth: Picture) -> float:
    """Structural similarity of two pictures (H, W, 3), uint8: scikit-image's, 7 x 7 window, mean over channels."""
    from skimage.metrics import structural_similarity

    found: Any = structural_similarity(truth, picture, channel_axis=2, data_range=255)
    return float(found)


def sharpness(picture: Picture, truth: Picture) -> float:
    """Mean gradient magnitude of a picture relative to the truth's: below 1 is blurred, above 1 grainy or ringing."""
    return gradient_magnitude(picture) / max(gradient_magnitude(truth), 1e-12)


def gradient_magnitude(picture: Picture) -> float:
    """The mean length of the forward differences of a picture (H, W, 3), uint8, over pixels and channels."""
    x = picture.astype(np.float64)
    down, right = np.diff(x, axis=0)[:, :-1], np.diff(x, axis=1)[:-1]
    return float(np.hypot(down, right).mean())
