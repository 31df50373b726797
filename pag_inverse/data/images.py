"""Images in and out: the only place where [-1, 1] becomes 8 bits and back.

An image is a float32 array (3, H, W), RGB, range [-1, 1]; a picture is what a file holds, uint8 (H, W, 3).
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from pag_inverse.data.decoding import Levels, check_depth, decode, opacity
from pag_inverse.data.files import check_no_run, write_whole
from pag_inverse.settings.files import check_file

_LOG = logging.getLogger(__name__)
LARGEST_PICTURE = 89_478_485  # pixels: from here on Pillow warns of pictures that are made to fill the memory
T = TypeVar("T")
Image = NDArray[np.float32]
Picture = NDArray[np.uint8]

RESIZES = ("bicubic", "reference")
# What scikit-image's wheel holds itself; its other photographs would be fetched.
BUNDLED = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
}
SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
            ".pnm", ".jp2", ".j2k", ".avif", ".tga"}  # fmt: skip
# Images by their suffix, of formats that are not read: left out of folders, with a warning.
UNREAD_SUFFIXES = {".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".exr",
                   ".hdr", ".psd", ".svg", ".eps"}  # fmt: skip


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read an image file as a person sees it: (3, H, W) in [-1, 1].

    Turned as its EXIF says, colours converted to sRGB by its ICC profile, transparency over white, grey as three
    equal channels, 16-bit grey in full precision. A missing, empty, damaged or foreign file, one less than 2 pixels a
    side and one of more than LARGEST_PICTURE pixels are one-line ValueErrors.
    """
    image = _read(path, lambda file: decode(file).image())
    if min(image.shape[1:]) < 2:
        raise ValueError(f"{path}: {image.shape[2]} x {image.shape[1]} pixels, too small to restore")
    return image


def read_levels(
    path: str | os.PathLike[str], background: str = "white", largest: int = LARGEST_PICTURE
) -> tuple[Levels, Levels | None]:
    """The displayed pixels (3, H, W) in 0..1 over `background`, and the opacity (H, W), None where all is opaque.

    The same ValueErrors as `read_image`; of more than `largest` pixels, too.
    """
    return _read(path, lambda file: (decode(file, background).levels(), opacity(file)), largest)


def _read(path: str | os.PathLike[str], use: Callable[[PIL.Image.Image], T], largest: int = LARGEST_PICTURE) -> T:
    """What `use` makes of an image file, turned as its EXIF says; ValueError where it cannot be read."""
    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; what matters is checked here
            with PIL.Image.open(Path(path)) as file:
                if file.width * file.height > largest:
                    limit = f"at most {largest / 1e6:.0f} million"
                    raise ValueError(f"{file.width} x {file.height} pixels; {limit}")
                frames = getattr(file, "n_frames", 1)
                if frames > 1 and file.format != "MPO":  # a camera's: a photograph and its previews
                    raise ValueError(f"{frames} pictures in one file; save the one that is meant")
                check_depth(file)
                file.load()
                PIL.ImageOps.exif_transpose(file, in_place=True)
                return use(file)
    except PIL.UnidentifiedImageError as error:
        empty = os.path.getsize(path) == 0
        reason = "the file is empty" if empty else "not an image of a kind that Pillow reads"
        raise ValueError(f"{path}: {reason}") from error
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: cannot be read: {reason}") from error


def prepare(image: Image, size: int, resize: str = "bicubic") -> Image:
    """Cut the central square and bring it to `size` pixels: (3, H, W) to (3, size, size), within [-1, 1].

    `bicubic` is Pillow's, antialiased, on float. `reference` is the published programs' way: nearest
    neighbour to enlarge, bilinear without antialiasing to reduce. A square of that size comes back as it is.
    Another size than a positive one and another `resize` are ValueErrors.
    """
    if size < 1 or resize not in RESIZES:
        raise ValueError(f"size is {size} and resize {resize!r}; allowed: at least 1, {' or '.join(RESIZES)}")
    height, width = image.shape[1:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = image[:, top : top + short, left : left + short]
    if short == size:
        return np.array(square, dtype=np.float32)
    if resize == "bicubic":
        return _bicubic(image, (left, top, left + short, top + short), size)
    return _nearest(square, size) if size > short else _bilinear(square, size)


def to_uint8(image: Any) -> Picture:
    """Turn an image (3, H, W) or (1, H, W) in [-1, 1], an array or tensor, into a picture (H, W, 3).

    Clipped and rounded, nothing else. Another shape and a NaN or Inf are ValueErrors.
    """
    array = np.asarray(image.detach().float().cpu() if hasattr(image, "detach") else image)
    if array.ndim != 3 or array.shape[0] not in (1, 3) or array.dtype.kind != "f":
        raise ValueError(f"an image is a float (3, H, W) or (1, H, W), not {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the image holds NaN or Inf")
    levels = np.rint(np.clip((array.astype(np.float64) + 1.0) * 127.5, 0.0, 255.0)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, (3, *levels.shape[1:])).transpose(1, 2, 0))


def from_uint8(picture: NDArray[np.uint8]) -> Image:
    """Turn a picture (H, W, 3) or (H, W), uint8, into an image (3, H, W) in [-1, 1]; else a ValueError."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture is uint8 (H, W, 3) or (H, W), not {picture.dtype} {picture.shape}")
    colour = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    return np.ascontiguousarray((colour / 127.5 - 1.0).transpose(2, 0, 1), dtype=np.float32)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read an image file as a picture (H, W, 3), uint8; the same ValueErrors as `read_image`."""
    return to_uint8(read_image(path))


def png_bytes(image: Any) -> bytes:
    """An image or a picture as the bytes of a PNG file."""
    picture = image if getattr(image, "dtype", None) == np.uint8 else to_uint8(image)
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(path: str | os.PathLike[str], image: Any) -> None:
    """Write an image or a picture as PNG; the file is there whole or not at all.

    A full disk and a folder that is missing or not writable are OSErrors that name `path`.
    """
    write_whole(path, png_bytes(image))


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files of a folder by their suffix, sorted by name, without hidden ones and subfolders.

    A folder that is missing, cannot be listed, is a run's or holds none is a ValueError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    check_no_run(folder)
    try:
        files = sorted((path for path in folder.iterdir() if not path.is_dir()), key=lambda path: path.name)
    except OSError as error:
        raise ValueError(f"{folder}: {error.strerror}") from error
    images = [path for path in files if is_image(path)]
    found = [path for path in images if path.is_file()]
    tell_left_out([path for path in images if not path.is_file()], "the link leads nowhere, or it is no file")
    if not found:
        raise ValueError(f"{folder}: no images in it ({', '.join(sorted(SUFFIXES))})")
    return found


def tell_left_out(paths: Sequence[Path], reason: str) -> None:
    """Warn of what is not read as a picture: the first five and their number."""
    for path in paths[:5]:
        _LOG.warning("%s is left out: %s", path, reason)
    if len(paths) > 5:
        _LOG.warning("%d more are left out: %s", len(paths) - 5, reason)


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix, and not hidden; one of a format that is not read gets a warning."""
    suffix, hidden = path.suffix.lower(), path.name.startswith(".")
    if suffix in UNREAD_SUFFIXES and not hidden:
        _LOG.warning("%s is left out: images of this format are not read; save it as PNG", path)
    return suffix in SUFFIXES and not hidden


def bundled_photograph(name: str) -> Image:
    """Read one of BUNDLED, the photographs that come with scikit-image; nothing is ever fetched."""
    if name not in BUNDLED:
        raise ValueError(f"unknown photograph {name!r}; there are {', '.join(BUNDLED)}")
    with resources.as_file(resources.files("skimage").joinpath("data", BUNDLED[name])) as path:
        return read_image(path)


def _bicubic(image: Image, box: tuple[int, int, int, int], size: int) -> Image:
    """Resize the box (left, top, right, bottom), whose outside counts at its edges; clip the overshoot."""
    bands = [PIL.Image.fromarray(np.ascontiguousarray(band, dtype=np.float32)) for band in image]
    resized = [band.resize((size, size), PIL.Image.Resampling.BICUBIC, box=box) for band in bands]
    return np.clip(np.stack([np.asarray(band) for band in resized]), -1.0, 1.0)


def _nearest(square: Image, size: int) -> Image:
    index = np.arange(size) * square.shape[1] // size
    return np.array(square[:, index[:, None], index], dtype=np.float32)


def _bilinear(square: Image, size: int) -> Image:
    short = square.shape[1]
    place = np.clip((np.arange(size) + 0.5) * short / size - 0.5, 0, short - 1)
    low = np.floor(place).astype(np.int64)
    high, part = np.minimum(low + 1, short - 1), (place - low).astype(np.float32)
    rows = square[:, low] * (1 - part)[:, None] + square[:, high] * part[:, None]
    return np.asarray(rows[:, :, low] * (1 - part) + rows[:, :, high] * part, dtype=np.float32)
