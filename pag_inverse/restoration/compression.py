"""How a JPEG file was compressed: what the operator of a measurement needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.JpegImagePlugin
import torch

from operators.jpeg import CHROMINANCE, LUMINANCE, quantisation_table


@dataclass(frozen=True)
class Compression:
    """The libjpeg quality whose tables are those of a file, or the nearest; how the colours were reduced."""

    quality: int
    subsampling: str
    exact: bool = True

    def __str__(self) -> str:
        nearest = "" if self.exact else ", the nearest to the file's own tables"
        return f"quality {self.quality}, {self.subsampling}{nearest}"


def read_compression(path: Path) -> Compression | None:
    """That of a JPEG file; None for another file. Other reductions of the colours than 4:4:4 count as 4:2:0."""
    try:
        with PIL.Image.open(path) as file:
            if not isinstance(file, PIL.JpegImagePlugin.JpegImageFile):
                return None
            tables, sampling = dict(vars(file)["quantization"]), PIL.JpegImagePlugin.get_sampling(file)
    except (OSError, ValueError):
        return None
    found = [torch.tensor(table, dtype=torch.float64).view(8, 8) for _, table in sorted(tables.items())][:2]
    if not found:
        return None

    def distance(quality: int) -> float:
        known = (quantisation_table(base, quality) for base in (LUMINANCE, CHROMINANCE))
        return sum(float((ours / theirs).log().abs().sum()) for ours, theirs in zip(known, found, strict=False))

    quality = min(range(1, 101), key=distance)
    return Compression(
        quality, "4:4:4" if sampling == 0 else "4:2:0", distance(quality) == 0 and sampling in (-1, 0, 2)
    )
