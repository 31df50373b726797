"""The pixels of an opened image file as they are displayed: colours in sRGB, transparency over a background."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
from numpy.typing import NDArray

Levels = NDArray[np.float32]  # (3, H, W), 0..1
SRGB_GAMMA = 1 / 2.2  # of a PNG: the exponent of what it stores, near that of sRGB
_TILE = 2**18  # pixels that are converted at once
_SAME = 2  # levels of 255 by which a profile that is sRGB may differ
PHOTOMETRIC, WHITE_IS_ZERO, BITS = 262, 0, 258  # tags of a TIFF and a value


def check_depth(file: PIL.Image.Image) -> None:
    """ValueError where the range of the pixels is not known: floating point, 32-bit and signed whole numbers."""
    if file.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    # Older Pillow opens 16-bit PNG and PGM as 32-bit whole numbers, too.
    if file.mode == "I" and file.format not in ("PNG", "PPM"):
        raise ValueError("32-bit or signed pixels, whose range is not known; save it with 8 or 16 bits")
    transparent = file.info.get("transparency")
    deep = any("16" in str(tile[3]) for tile in getattr(file, "tile", []))
    if file.mode == "RGB" and isinstance(transparent, tuple) and (deep or max(transparent) > 255):
        raise ValueError("a transparent colour of 16 bits, which is not read; save it with an alpha channel")


@dataclass(frozen=True)
class Decoded:
    """An opened file, the displayed level, 0..1, of each number it stores, and how its colours become sRGB."""

    file: PIL.Image.Image
    background: float
    table: NDArray[np.float64]
    profile: Profile | None

    def levels(self) -> Levels:
        """The displayed pixels, (3, H, W) in 0..1."""
        return self._filled(1.0, 0.0)

    def image(self) -> NDArray[np.float32]:
        """The displayed pixels, (3, H, W) in [-1, 1]."""
        return self._filled(2.0, -1.0)

    def _filled(self, scale: float, offset: float) -> NDArray[np.float32]:
        """All pixels in parts, so that no second copy of them is in memory."""
        width, height = self.file.size
        filled = np.empty((3, height, width), dtype=np.float32)
        columns = min(width, _TILE)
        rows = max(1, _TILE // columns)
        for top, left in itertools.product(range(0, height, rows), range(0, width, columns)):
            box = (left, top, min(width, left + columns), min(height, top + rows))
            filled[:, top : box[3], left : box[2]] = self._part(self.file.crop(box)) * scale + offset
        return filled

    def _part(self, part: PIL.Image.Image) -> NDArray[np.float64]:
        """Displayed levels (3, h, w): gamma and profile first, then transparency."""
        clear = opacity(part)
        if part.mode.startswith("I"):
            numbers = np.asarray(part)
            if numbers.min() < 0 or numbers.max() >= len(self.table):
                raise ValueError(f"pixels beyond {len(self.table) - 1}, the largest of their depth")
            levels = np.broadcast_to(self.table[numbers], (3, *numbers.shape))
        else:
            colours = self.profile.apply(part) if self.profile else _rgb(part)
            levels = self.table[np.asarray(colours).transpose(2, 0, 1)]
        return levels if clear is None else levels * clear + self.background * (1 - clear)


@dataclass(frozen=True)
class Profile:
    """Colours of a mode to sRGB."""

    mode: str
    transform: PIL.ImageCms.ImageCmsTransform

    def apply(self, part: PIL.Image.Image) -> PIL.Image.Image:
        """A part of a picture, RGB."""
        colours = (
            part if part.mode == self.mode else _rgb(part).convert(self.mode) if self.mode != "L" else part.convert("L")
        )
        return PIL.ImageCms.applyTransform(colours, self.transform) or _rgb(part)


def decode(file: PIL.Image.Image, background: str = "white") -> Decoded:
    """The displayed pixels: converted to sRGB where a profile is embedded or a PNG names its gamma, transparency over
    `background` ("white" or "black"), grey as three equal channels, 16-bit grey in full precision.

    The primaries that a PNG names without a profile (cHRM) are not looked at.
    """
    profile = _profile(file)
    if file.mode.startswith("I"):
        table = _table(2 ** _bits(file) - 1, _gamma(file))
        if profile is not None:
            greys = PIL.Image.fromarray(np.arange(256, dtype=np.uint8)[None])
            shown = np.asarray(profile.apply(greys))[0].mean(axis=1) / 255
            table = np.interp(np.linspace(0, 255, len(table)), np.arange(256), shown)
        # Pillow inverts TIFFs whose zero is white only where they have 8 bits.
        if getattr(file, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
            table = table[::-1]
        profile = None
    else:
        table = _table(255, _gamma(file))
    return Decoded(file, 1.0 if background == "white" else 0.0, table, profile)


def _bits(file: PIL.Image.Image) -> int:
    """The bits of a number of 16-bit grey: a TIFF may use fewer of them."""
    told = getattr(file, "tag_v2", {}).get(BITS, 16)
    bits = told[0] if isinstance(told, tuple) else told
    return bits if isinstance(bits, int) and 8 < bits < 16 else 16


def _table(top: int, gamma: float) -> NDArray[np.float64]:
    """The displayed level of each number from 0 to `top`."""
    levels = np.arange(top + 1) / top
    return levels if abs(gamma - SRGB_GAMMA) < 0.01 else levels ** (SRGB_GAMMA / gamma)


def _gamma(file: PIL.Image.Image) -> float:
    """The exponent that a PNG names; that of sRGB where it names none, or something better."""
    gamma = file.info.get("gamma")
    if file.format != "PNG" or {"icc_profile", "srgb"} & set(file.info) or not isinstance(gamma, float):
        return SRGB_GAMMA
    return gamma if 0.1 < gamma < 10 else SRGB_GAMMA


def opacity(file: PIL.Image.Image) -> NDArray[np.float32] | None:
    """How opaque each pixel is, (H, W) in 0..1; None where the file has no transparency."""
    if not file.has_transparency_data:
        return None
    if file.mode.startswith("I"):
        return np.asarray(np.asarray(file) != file.info["transparency"], dtype=np.float32)
    return np.asarray(file.convert("RGBA").getchannel("A"), dtype=np.float32) / np.float32(255)


def _rgb(part: PIL.Image.Image) -> PIL.Image.Image:
    """The colours of a part of a picture, whatever its mode, without its transparency."""
    clear = part.mode in ("P", "PA", "La", "RGBa") or part.has_transparency_data
    return part.convert("RGBA").convert("RGB") if clear else part.convert("RGB")


def _profile(file: PIL.Image.Image) -> Profile | None:
    """How the embedded ICC profile becomes sRGB; None without one, and where it is damaged, sRGB or of another mode."""
    srgb = PIL.ImageCms.createProfile("sRGB")
    try:
        if file.mode == "LAB":
            lab = PIL.ImageCms.createProfile("LAB")
            return Profile("LAB", PIL.ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
        if not (embedded := file.info.get("icc_profile")):
            return None
        source: Any = PIL.ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(source.profile.xcolor_space.strip())
        grey = file.mode in ("1", "L", "LA", "La") or file.mode.startswith("I")
        if mode is None or (mode == "CMYK") != (file.mode == "CMYK") or (mode == "L" and not grey):
            return None
        found = Profile(mode, PIL.ImageCms.buildTransform(source, srgb, mode, "RGB"))
        return None if mode != "CMYK" and _changes_nothing(found) else found
    except (PIL.ImageCms.PyCMSError, OSError):
        return None


def _changes_nothing(profile: Profile) -> bool:
    """Whether greys, and colours where it has them, stay as they are: the profile is sRGB, whatever its name."""
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    probe = np.concatenate([greys, cube], axis=1) if profile.mode == "RGB" else greys
    shown = np.asarray(profile.apply(PIL.Image.fromarray(probe)))
    return int(np.abs(shown.astype(int) - probe).max()) <= _SAME
