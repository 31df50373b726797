"""What a visitor gives: pictures, painted holes, masks and kernels, checked and as files for a request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from pag_inverse.data.arrays import read_kernel, read_mask, read_measurement
from pag_inverse.data.images import Picture, bundled_photograph, prepare, read_image, to_uint8, write_png
from pag_inverse.settings import settings

PREVIEW = 512  # pixels of the longer side
OWN_SIDE = 256  # of a bundled photograph that stands for a measurement


@settings
class Limits:
    """What the page takes: the longer side of what is restored in pixels, and the size of an upload in megabytes."""

    max_side: int = 1024
    max_upload: float = 20.0


def bundled(name: str, own: bool, folder: Path, limits: Limits) -> Path:
    """A bundled photograph as a file; as a measurement, its central square at 256 pixels, or what the page takes."""
    image = bundled_photograph(name)
    path = folder / f"{name}.png"
    write_png(path, prepare(image, min(OWN_SIDE, limits.max_side)) if own else image)
    return path


def read_upload(path: Path | None, own: bool, whole: bool, limits: Limits) -> Picture:
    """The picture or measurement of a file, (H, W, 3) uint8.

    ValueError of one line: none, no picture, too large a file, or a measurement (`own`) or a `whole` picture of too
    many pixels; a square is cut from larger ones.
    """
    if path is None:
        raise ValueError("no picture: upload one, or choose a bundled photograph")
    megabytes = os.path.getsize(path) / 1e6
    if megabytes > limits.max_upload:
        raise ValueError(f"{path.name} has {megabytes:.1f} MB; this page takes at most {limits.max_upload:g} MB")
    if own or whole:
        _check_side(path, limits)
    try:
        image = read_measurement(path) if own else read_image(path)
    except ValueError as error:
        raise ValueError(shown(error, path)) from error
    _check_sides(path.name, image.shape[2], image.shape[1], limits.max_side if own or whole else 2**30)
    return to_uint8(image)


def preview(picture: Picture) -> Picture:
    """The picture with at most 512 pixels on its longer side."""
    image = PIL.Image.fromarray(picture)
    image.thumbnail((PREVIEW, PREVIEW))
    return np.asarray(image)


def painted_hole(layers: Sequence[NDArray[Any]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where layers of paint (H, W, 4) cover a picture of `size` (H, W): a mask, True where it was measured.

    ValueError: layers of another size, paint nowhere or everywhere.
    """
    covered = np.zeros(size, dtype=bool)
    for layer in layers:
        if layer.shape[:2] != size:
            raise ValueError(f"the paint has {layer.shape[:2]} pixels and the picture {size}; paint on it anew")
        covered |= layer[..., 3] > 0
    return check_hole(~covered)


def check_hole(measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask itself; ValueError where it marks nothing or everything as missing."""
    if measured.all():
        raise ValueError("nothing is marked as missing: paint over it, upload a mask, or name its colour")
    if not measured.any():
        raise ValueError("everything is marked as missing: leave a part of the picture as it is")
    return measured


def is_painted(layers: Sequence[NDArray[Any]]) -> bool:
    """Whether there is paint on any layer (H, W, 4)."""
    return any((layer[..., 3] > 0).any() for layer in layers)


def mask_file(
    upload: Path | None,
    layers: Sequence[NDArray[Any]],
    size: tuple[int, int],
    folder: Path,
    *,
    white_is_missing: bool = False,
) -> Path:
    """The file of an uploaded mask, or of the painted one, which is written in the same convention.

    ValueError: neither, both, or one that does not fit.
    """
    if upload is None:
        path = folder / "mask.png"
        write_png(path, _grey(painted_hole(layers, size) != white_is_missing))
        return path
    if is_painted(layers):
        raise ValueError("the hole is painted and a mask is uploaded: remove one of them")
    try:
        measured = check_hole(read_mask(upload, white_is_missing=white_is_missing))
    except ValueError as error:
        raise ValueError(shown(error, upload)) from error
    if measured.shape != size:
        raise ValueError(
            f"{upload.name} has {measured.shape[1]} x {measured.shape[0]} pixels and the picture "
            f"{size[1]} x {size[0]}: resize the mask to the picture's size"
        )
    return upload


def kernel_file(upload: Path | None) -> Path | None:
    """The file of a kernel, None where there is none. ValueError: no kernel, or one with an even side."""
    if upload is None:
        return None
    try:
        read_kernel(upload)
    except ValueError as error:
        raise ValueError(shown(error, upload)) from error
    return upload


def shown(error: BaseException, *paths: Path | None) -> str:
    """An error in one line for the page: files by their names, settings without the dashes of flags."""
    text = " ".join(str(error).split())
    for path in paths:
        if path is not None:
            text = text.replace(f"{path.parent}{os.sep}", "")
    return text.replace("--", "")


def _grey(white: NDArray[np.bool_]) -> Picture:
    levels = np.where(white, 255, 0).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels[..., None], (*levels.shape, 3)))


def _check_side(path: Path, limits: Limits) -> None:
    """Before the pixels are decoded, where the header tells the size; a file that is no picture is told later."""
    try:
        with PIL.Image.open(path) as file:
            width, height = file.size
    except Exception:  # whatever a foreign file leads a decoder to
        return
    _check_sides(path.name, width, height, limits.max_side)


def _check_sides(name: str, width: int, height: int, most: int) -> None:
    if max(width, height) > most:
        raise ValueError(
            f"{name} has {width} x {height} pixels; this page takes at most {most} a side: make it smaller, or use "
            "pag-inverse solve"
        )
