"""Measurements, masks and kernels from files: pictures, or `.npy` arrays in a range that is stated and checked."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pag_inverse.data.images import Image, read_image, read_levels
from pag_inverse.data.masks import FEW, has_soft_edges, is_photograph
from pag_inverse.settings.files import check_file

_LOG = logging.getLogger(__name__)
LARGEST, _DIMENSIONS = 2**26, 8  # numbers in an array: reading takes three times eight bytes of each
LARGEST_BYTES, LARGEST_MASK, LARGEST_KERNEL = 2**29, 2**25, 2**22  # bytes of an array, pixels, numbers
COLOURED = 0.2  # of a channel's range between the channels of a pixel
_NO_MASK = (
    "more than its edges is neither black (missing) nor white (measured), as in a photograph; a mask is black and white"
)
SUM_TOLERANCE = 0.02  # of a kernel's sum about 1
FURTHEST = 10.0  # no sensible noise takes a measurement in [-1, 1] further; 0..255 does


def read_measurement(path: str | Path) -> Image:
    """Read a measurement, (3, H, W) in [-1, 1]: a picture, or a .npy (3, H, W), (1, 3, H, W) or (H, W, 3).

    Whole numbers in an array are 0..255; floats are in [-1, 1], give or take the noise. Everything else is a one-line
    ValueError: another range, another shape, NaN or Inf.
    """
    path = Path(path)
    if not _is_array(path):
        return read_image(path)
    array = _load_array(path)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim == 3 and array.shape[0] != 3 and array.shape[2] == 3:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] != 3:
        raise ValueError(f"{path}: a measurement is an array (3, H, W), not {array.shape}")
    return np.ascontiguousarray(_to_unit_range(array, path), dtype=np.float32)


def read_mask(path: str | Path, *, white_is_missing: bool = False) -> NDArray[np.bool_]:
    """Read a mask (H, W), True where the image was measured.

    Of a picture that is white, or the half nearest to it; what was erased (is transparent) is missing. Of a .npy: True,
    1, or from the middle of 0..255 (whole numbers) or 0..1 (floats) upwards. `white_is_missing` turns both round, not
    the transparent part. Soft edges are cut in the middle, which is told. One-line ValueErrors: a mask without a
    measured pixel, a picture of levels 0 and 1 of 255, a photograph, another range or shape. Of a photograph with a
    part erased, the opacity is the mask.
    """
    path = Path(path)
    if _is_array(path):
        known = _mask_of_array(_as_plane(_load_array(path), path), path) != white_is_missing
    else:
        known = _mask_of_picture(path, white_is_missing)
    if not known.any():
        convention = "black, False or 0" if white_is_missing else "white, True or 1"
        raise ValueError(f"{path}: the mask has no measured pixel; {convention} is what was measured")
    return known


def read_kernel(path: str | Path) -> NDArray[np.float64]:
    """Read a point spread function (H, W), not negative, divided by its sum: a .npy, or a picture's brightness.

    Transparent pixels of a picture are zeros. A sum that is not about 1 is told. A kernel of zeros, an even
    side, another shape, negative numbers, a coloured picture, NaN and Inf are one-line ValueErrors.
    """
    path = Path(path)
    kernel = _as_plane(_load_array(path), path) if _is_array(path) else _kernel_of_picture(path)
    if kernel.size > LARGEST_KERNEL:
        raise ValueError(
            f"{path}: {kernel.shape[1]} x {kernel.shape[0]} numbers; a kernel has at most {LARGEST_KERNEL}"
        )
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.min() < 0:
        raise ValueError(f"{path}: a kernel is not negative; its least value is {kernel.min():g}")
    if not kernel.any():
        raise ValueError(f"{path}: the kernel is all zeros; a point spread function has a positive sum")
    if not all(side % 2 for side in kernel.shape):
        raise ValueError(
            f"{path}: kernel of shape {kernel.shape}; both sides must be odd: add a row or a column of zeros"
        )
    total = float(kernel.max()) * float((kernel / kernel.max()).sum())  # of huge numbers, no Inf on the way
    kernel = kernel / kernel.max()
    kernel = kernel / kernel.sum()
    if not abs(total - 1) <= SUM_TOLERANCE:
        _LOG.warning("%s: the kernel sums to %.4g; it is divided by its sum", path, total)
    return kernel


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _kernel_of_picture(path: Path) -> NDArray[np.float32]:
    """The brightness of a grey picture; ValueError where it has colours, as photographs have."""
    levels = read_levels(path, "black", LARGEST_KERNEL)[0]
    if np.ptp(levels, axis=0).max() > COLOURED:
        raise ValueError(f"{path}: the picture has colours; a kernel is a grey picture, or a .npy (H, W)")
    brightness: NDArray[np.float32] = levels.mean(axis=0)
    return brightness


def _load_array(path: Path) -> NDArray[Any]:
    """A finite array of numbers; its header is checked against the file before memory is taken for it."""
    size = check_file(path)
    try:
        shape, dtype, start = _read_header(path)
    except Exception as error:  # numpy parses the header as Python: it raises whatever that does
        raise ValueError(f"{path} is no array that numpy can read: {' '.join(str(error).split())[:200]}") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {str(dtype)[:40]}, not real numbers")
    if not shape or len(shape) > _DIMENSIONS or 0 in shape:
        raise ValueError(f"{path}: the array {str(shape)[:80]} is empty, a single number or has too many dimensions")
    if math.prod(shape) > LARGEST:
        raise ValueError(f"{path}: the array {shape} has more than {LARGEST / 1e6:.0f} million numbers")
    if math.prod(shape) * dtype.itemsize > LARGEST_BYTES:
        raise ValueError(f"{path}: {shape} of {dtype} has more than {LARGEST_BYTES / 1e9:.1f} GB; save it as float32")
    if size < start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path} is truncated: its array {shape} of {dtype} is longer than the file")
    array = np.load(path, allow_pickle=False).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: the array holds NaN or Inf")
    return np.asarray(array)


def _read_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """The shape, the kind of number and the place of the first one."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"its shape is {shape}")
        return shape, dtype, file.tell()


def _as_plane(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """(H, W), also of (1, H, W) and (1, 1, H, W)."""
    if array.ndim < 2 or array.shape[:-2].count(1) != array.ndim - 2:
        raise ValueError(f"{path}: a mask or kernel is an array (H, W), not {array.shape}")
    return array.reshape(array.shape[-2:])


def _to_unit_range(array: NDArray[Any], path: Path) -> NDArray[np.float32]:
    low, high = float(array.min()), float(array.max())
    said = f"{path}: {array.dtype} from {low:g} to {high:g}"
    if array.dtype.kind != "f":
        if array.dtype.kind == "b" or low < 0 or high > 255:
            raise ValueError(f"{said}; a measurement of whole numbers is 0..255, one of floats is in [-1, 1]")
        levels = array.astype(np.float32)
        levels /= 127.5
        levels -= 1.0
        return levels
    if max(-low, high) > FURTHEST:
        raise ValueError(f"{said}; a measurement of floats is in [-1, 1], one of whole numbers 0..255")
    if _looks_like_0_to_1(array, low, high):
        raise ValueError(f"{said}, which looks like the range 0..1; floats are to be in [-1, 1]: save 2 * y - 1")
    return array.astype(np.float32, copy=False)


def _looks_like_0_to_1(array: NDArray[Any], low: float, high: float) -> bool:
    """Whether floats are a picture in 0..1, also with noise; one in [-1, 1] has values well below 0."""
    if low >= 0 and low < high <= 1:
        return True
    within = -0.5 <= low < high <= 1.5 and float(array.mean(dtype=np.float64)) > 0.25
    return within and float((array < 0).mean()) < 0.1 and float((array < -0.2).mean()) < 0.001


def _mask_of_array(array: NDArray[Any], path: Path) -> NDArray[np.bool_]:
    low, high = float(array.min()), float(array.max())
    top = 1 if array.dtype.kind in "bf" or high <= 1 else 255
    if low < 0 or high > top:
        raise ValueError(
            f"{path}: {array.dtype} from {low:g} to {high:g}; a mask is bool, floats 0..1, or whole numbers 0..255"
        )
    levels = array if top == 255 else array * np.float32(255)
    if is_photograph(levels):
        _check_soft(levels, path)
    return np.asarray(array >= top / 2)


def _check_soft(levels: NDArray[Any], path: Path) -> None:
    """ValueError where levels are no mask with soft edges; where they are, that is told."""
    if not has_soft_edges(levels):
        raise ValueError(f"{path}: {_NO_MASK}")
    _LOG.warning("%s: the mask has soft edges; they are cut in the middle between black and white", path)


def _mask_of_picture(path: Path, white_is_missing: bool) -> NDArray[np.bool_]:
    levels, opacity = read_levels(path, "black", LARGEST_MASK)
    grey = levels.mean(axis=0)
    visible = None if opacity is None or (opacity >= 0.5).all() else opacity >= 0.5
    if visible is None and 0 < grey.max() < 1.5 / 255:  # a mask of 0 and 1 that was saved as it is
        raise ValueError(
            f"{path}: its levels are 0 and 1 of 255, all black; in a picture white is 255: 0 and 1 count only in a .npy"
        )
    coloured = (levels.max(axis=0) - levels.min(axis=0)) > COLOURED
    is_coloured = bool(coloured[... if visible is None else visible].mean() > FEW)
    photograph = is_coloured or is_photograph(grey * 255, visible)
    if photograph and visible is None:
        _check_soft(grey * (0 if is_coloured else 255), path)
    if photograph and visible is not None:
        return visible  # of a photograph, what was not erased
    known = np.asarray((grey >= 0.5) != white_is_missing)
    return known if visible is None else np.asarray(known & visible)


def read_saved(path: Path) -> NDArray[Any]:
    """An array that a run saved; ValueError where the file is damaged or empty."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except Exception as error:  # whatever numpy makes of bytes that are no array
        raise ValueError(f"{path} is no array that numpy can read") from error
    if 0 in array.shape:
        raise ValueError(f"{path}: the array {array.shape} is empty")
    return array
