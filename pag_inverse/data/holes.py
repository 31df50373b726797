"""What of a picture is missing: a transparent part, a box, a colour that marks it; and whether a mask fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pag_inverse.data.images import Image, read_levels

Known = NDArray[np.bool_]  # (H, W), True where the picture was measured
_CONSTANT = 0.02  # of [-1, 1]: the deviation of pixels that are of one colour
_HALF = 0.5
_MOST = 0.9  # of the pixels: thin scratches are less


def without_colour(image: Image, colour: tuple[int, int, int], tolerance: int) -> Known:
    """False where each channel of an image (3, H, W) is within `tolerance` of 255 levels of a colour.

    ValueError: no pixel is, or all are.
    """
    wanted = np.array(colour, dtype=np.float32)[:, None, None]
    known: Known = np.abs((image + 1) * 127.5 - wanted).max(axis=0) > tolerance + 0.5
    share = "no pixel" if known.all() else "every pixel" if not known.any() else ""
    if share:
        said = "#{:02x}{:02x}{:02x}".format(*colour)
        raise ValueError(f"{share} is within {tolerance} levels of {said}; change the colour or --colour-tolerance")
    return known


def without_box(shape: tuple[int, ...], box: tuple[int, int, int, int]) -> Known:
    """False in a box (top, left, height, width) of a picture (3, H, W); ValueError where it does not lie inside."""
    top, left, rows, columns = box
    _, height, width = shape
    if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > height or left + columns > width:
        raise ValueError(f"--box {top} {left} {rows} {columns} does not lie inside the {height} x {width} pixels")
    known = np.ones((height, width), dtype=np.bool_)
    known[top : top + rows, left : left + columns] = False
    return known


def opaque(path: Path) -> Known | None:
    """True where a picture's file is fully opaque; None where it has no transparent pixel, or is an array."""
    if path.suffix.lower() == ".npy":
        return None
    _, opacity = read_levels(path)
    if opacity is None or bool((opacity >= 1).all()):
        return None
    return np.asarray(opacity >= 1)


def grown(known: Known, pixels: int) -> Known:
    """The mask with a hole that is larger by so many pixels in all directions."""
    from scipy.ndimage import minimum_filter

    return known if pixels == 0 else np.asarray(minimum_filter(known, size=2 * pixels + 1, mode="nearest"))


def check_hole(known: Known, what: str) -> None:
    """ValueError where nothing of a picture is left."""
    if not known.any():
        raise ValueError(f"{what}: no measured pixel is left; make what is missing smaller")


def mask_notices(image: Image, known: Known, *, white_is_missing: bool, scattered: bool = False) -> list[str]:
    """What may be wrong with a mask, from its shares and from what lies under it in an image (3, H, W).

    scattered: most pixels are expected to be missing.
    """
    if known.all():
        return ["the mask has no missing pixel: nothing is filled in"]
    measured, missing = (_is_constant(image[:, part]) for part in (known, ~known))
    share = f"{100 * known.mean():.0f} % of the pixels count as measured"
    other, white = ("white-measured", "measured") if white_is_missing else ("white-missing", "missing")
    if measured and not missing:
        return [f"{share}, and they are all of one colour: --mask-convention {other} takes white as {white}"]
    if not missing and known.mean() < _HALF and not scattered:
        return [f"{share}: if white is what is {white}, give --mask-convention {other}"]
    from scipy.ndimage import binary_erosion

    if not scattered and known.mean() < _MOST and not binary_erosion(~known, np.ones((3, 3))).any():
        return [f"{share}, and the holes are narrower than 3 pixels: --task random_inpainting is meant for such holes"]
    return []


def _is_constant(pixels: NDArray[np.float32]) -> bool:
    return bool(pixels.std(axis=1).max() < _CONSTANT)
