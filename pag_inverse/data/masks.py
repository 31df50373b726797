"""Whether levels are those of a mask, black and white with soft edges, or of a photograph."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter
from numpy.typing import NDArray

FEW = 0.02  # of the pixels: as many may be anything
DARK, LIGHT = 25, 230  # of 255: the blacks and the whites of a mask
_PLAIN, _ROUGH = 0.5, 8  # of a mask with soft edges: the share of black and white; levels of a ramp off its mean
_EDGE, _NEAR, _UNEVEN = 5, 5, 0.3  # width of an edge, levels that are equal, the most that are not (coarse JPEG: 0.2)


def is_photograph(levels: NDArray[Any], visible: NDArray[np.bool_] | None = None) -> bool:
    """Whether levels (H, W), 0..255, hold what a mask does not, among the `visible` pixels.

    That is: levels between black and white away from edges, or blacks or whites that are uneven, as in a dark
    photograph. Two levels alone are a mask, whichever they are.
    """
    grey = np.rint(levels).astype(np.uint8) if levels.dtype != np.uint8 else levels
    picture = PIL.Image.fromarray(grey)
    shown = None if visible is None else PIL.Image.fromarray(visible)
    histogram = np.array(picture.histogram(mask=shown)[:256], dtype=np.float64)
    if np.count_nonzero(histogram) <= 2:
        return False
    if visible is None and not histogram[: DARK + 1].any():  # shades of white alone
        return True
    if _uneven(histogram[: DARK + 1]) + _uneven(histogram[LIGHT:]) > _UNEVEN * histogram.sum():
        return True
    between = (grey > DARK) & (grey < LIGHT)
    if visible is not None:
        between &= visible
    if between.sum() <= FEW * histogram.sum():
        return False
    between &= np.asarray(picture.filter(PIL.ImageFilter.MinFilter(_EDGE))) <= DARK
    between &= np.asarray(picture.filter(PIL.ImageFilter.MaxFilter(_EDGE))) >= LIGHT
    edges, soft = between.sum(), histogram[DARK + 1 : LIGHT].sum()
    return bool(soft - edges > FEW * histogram.sum())


def has_soft_edges(levels: NDArray[Any]) -> bool:
    """Whether levels (H, W), 0..255, are a mask with wide soft edges: black, white, and smooth ramps between."""
    grey = np.rint(levels).astype(np.uint8) if levels.dtype != np.uint8 else levels
    dark, light = grey <= DARK, grey >= LIGHT
    if not dark.any() or not light.any() or (dark | light).mean() < _PLAIN:
        return False
    smoothed = np.asarray(PIL.Image.fromarray(grey).filter(PIL.ImageFilter.BoxBlur(2)), dtype=np.int16)
    between = ~(dark | light)
    rough = np.abs(smoothed - grey.astype(np.int16)) > _ROUGH
    uneven = sum(_uneven(np.bincount(grey[part], minlength=256).astype(np.float64)) for part in (dark, light))
    return bool(rough[between].mean() < FEW and uneven <= _UNEVEN * grey.size)


def _uneven(histogram: NDArray[np.float64]) -> float:
    """How many pixels are not near the median of their histogram."""
    if not histogram.any():
        return 0.0
    median = int(np.searchsorted(histogram.cumsum(), histogram.sum() / 2))
    return float(histogram.sum() - histogram[max(0, median - _NEAR) : median + _NEAR + 1].sum())
