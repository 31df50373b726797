"""The pixels of an opened image file as they are displayed: colours in sRGB, transparency over a background."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
from numpy.typing import NDArray

Levels = NDArray[np.float64]  # (3, H, W), 0..1
SRGB_GAMMA = 1 / 2.2  # of a PNG: the exponent of what it stores, near that of sRGB
_ROWS = 64
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a TIFF tag and a value of it


def check_depth(file: PIL.Image.Image) -> None:
    """ValueError where the range of the pixels is not known: floating point, 32-bit and signed whole numbers."""
    if file.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    # Older Pillow opens 16-bit PNG and PGM as 32-bit whole numbers, too.
    if file.mode == "I" and file.format not in ("PNG", "PPM"):
        raise ValueError("32-bit or signed pixels, whose range is not known; save it with 8 or 16 bits")


@dataclass(frozen=True)
class Decoded:
    """The pixels of a file, whole numbers (H, W, 3) or grey (H, W), and the displayed level, 0..1, of each number."""

    pixels: NDArray[Any]
    table: NDArray[np.float64]

    def levels(self) -> Levels:
        """The displayed pixels, (3, H, W) in 0..1."""
        return self._filled(self.table)

    def image(self) -> NDArray[np.float32]:
        """The displayed pixels, (3, H, W) in [-1, 1], without a copy of another precision."""
        return self._filled((self.table * 2.0 - 1.0).astype(np.float32))

    def _filled(self, table: NDArray[Any]) -> NDArray[Any]:
        filled = np.empty((3, *self.pixels.shape[:2]), dtype=table.dtype)
        for channel, band in enumerate(filled):
            numbers = self.pixels if self.pixels.ndim == 2 else self.pixels[:, :, channel]
            for row in range(0, len(band), _ROWS):  # numpy makes eight bytes of each number on the way
                band[row : row + _ROWS] = table[numbers[row : row + _ROWS]]
        return filled


def decode(file: PIL.Image.Image, background: str = "white") -> Decoded:
    """The displayed pixels: converted to sRGB where a profile is embedded or a PNG names its gamma, transparency over
    `background`, grey as three equal channels, 16-bit grey in full precision.
    """
    gamma = _gamma(file)
    if file.mode.startswith("I"):
        return Decoded(_decode_16_bit(file, background), _table(65535, gamma))
    file = to_srgb(_without_palette(file))
    if file.has_transparency_data:
        file = PIL.Image.alpha_composite(PIL.Image.new("RGBA", file.size, background), file.convert("RGBA"))
    return Decoded(np.asarray(file.convert("RGB")), _table(255, gamma))


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


def opacity(file: PIL.Image.Image) -> Levels | None:
    """How opaque each pixel is, (H, W) in 0..1; None where the file has no transparency."""
    if not file.has_transparency_data:
        return None
    if file.mode.startswith("I"):
        return np.asarray(np.asarray(file) != file.info["transparency"], dtype=np.float64)
    return np.asarray(file.convert("RGBA"))[:, :, 3] / 255.0


def to_srgb(file: PIL.Image.Image) -> PIL.Image.Image:
    """Convert from the embedded ICC profile to sRGB; a file without one, or with a damaged one, stays as it is."""
    if file.mode == "LAB":
        lab, target = (PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile(name)) for name in ("LAB", "sRGB"))
        return PIL.ImageCms.profileToProfile(file, lab, target, outputMode="RGB") or file
    embedded = file.info.get("icc_profile")
    colour_mode = {"L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}.get(file.mode)
    if not embedded or colour_mode is None:
        return file
    try:
        profile = PIL.ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        if "srgb" in PIL.ImageCms.getProfileDescription(profile).lower():
            return file
        colours = file.convert(colour_mode)
        srgb = PIL.ImageCms.profileToProfile(colours, profile, PIL.ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (PIL.ImageCms.PyCMSError, OSError):
        return file
    if srgb is None or not file.has_transparency_data:
        return srgb or file
    srgb.putalpha(file.convert("RGBA").getchannel("A"))
    return srgb


def _without_palette(file: PIL.Image.Image) -> PIL.Image.Image:
    if file.mode not in ("P", "PA"):
        return file
    return file.convert("RGBA" if file.has_transparency_data else "RGB")


def _decode_16_bit(file: PIL.Image.Image, background: str) -> NDArray[np.uint16]:
    levels: NDArray[Any] = np.asarray(file)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("pixels of more than 16 bits")
    grey = levels.astype(np.uint16)
    # Pillow inverts TIFFs whose zero is white only where they have 8 bits.
    if getattr(file, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 65535 - grey
    if (transparent := file.info.get("transparency")) is not None:
        grey[levels == transparent] = 65535 if background == "white" else 0
    return grey
