"""JPEG: what a picture looks like after it was compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from operators.base import Operator, Projection, Shape
from operators.validation import check_shape, settings

__all__ = ["Jpeg", "JpegSettings", "quantisation_table"]

Quality = Annotated[int, Field(ge=1, le=100)]
Subsampling = Literal["4:2:0", "4:4:4"]
BLOCK = 8

# ITU-T T.81, Tables K.1 and K.2.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * BLOCK,) * 4,
)
# JFIF: Y, Cb and Cr of R, G and B, before 128 is added to Cb and Cr.
TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


@settings
class JpegSettings:
    """`quality` from 1 to 100; `subsampling` of the colours: 4:2:0 halves both sides, 4:4:4 keeps them; `project` as
    in `Operator`."""

    quality: Quality
    subsampling: Subsampling = "4:2:0"
    project: Projection = "published"


class Jpeg(Operator):
    """The picture that a JPEG decoder shows: colours to YCbCr, blocks of 8 x 8 to DCT coefficients, which are rounded
    to multiples of a table, and all the way back (ITU-T T.81, JFIF).

    As libjpeg and Pillow do it, from and to 8 bits: the standard tables scaled by `quality`, colours averaged over
    2 x 2 pixels and interpolated back by a triangle, edges repeated where a side is no multiple of 8 or 16. Three
    channels are red, green and blue, a single one is grey. It is not linear. Its gradient leaves out rounding and
    clamping: it is that of the colours' reduction alone. ValueError: another number of channels.
    """

    linear = False
    Settings: ClassVar[type] = JpegSettings

    def __init__(
        self, in_shape: Shape, quality: int, subsampling: Subsampling = "4:2:0", *, project: str = "published"
    ) -> None:
        channels, _, _ = check_shape(in_shape)
        if channels not in (1, 3):
            raise ValueError(f"an image of {channels} channels has no JPEG; it must have 1 (grey) or 3 (RGB)")
        super().__init__(in_shape, in_shape, project=project)
        checked = JpegSettings(quality=quality, subsampling=subsampling)
        self.quality, self.halved = checked.quality, checked.subsampling == "4:2:0" and channels == 3
        tables = [LUMINANCE, CHROMINANCE, CHROMINANCE][:channels]
        self.tables = torch.stack([quantisation_table(table, self.quality) for table in tables])

    @classmethod
    def _from_settings(cls, in_shape: Shape, settings: JpegSettings, rngs: Sequence[np.random.Generator]) -> Jpeg:
        return cls(in_shape, settings.quality, settings.subsampling, project=settings.project)

    def _posterior_mean(self, x: Tensor, y: Tensor, sigma: float, variance: float, iterations: int) -> Tensor:
        """For the noise of rounding instead of `sigma`, which is not used.

        Rounding to multiples of q leaves each DCT coefficient an error of variance q^2 / 12 (Bennett, 1948). Its mean
        under N(x, variance) is kept within the q / 2 around the multiple that y has. Y, Cb and Cr are taken as
        independent, each with its own share of the variance; a mean of 2 x 2 colours has a quarter of it.
        """
        ours, theirs = (_mixed(127.5 * (image + 1), TO_YCC, 0.0, 128.0) for image in (x, y))
        height, width = self.in_shape[1:]
        mixing = x.new_tensor(TO_YCC if len(self.tables) == 3 else ((1.0,),))
        variances = variance * mixing.square().sum(dim=1).view(-1, 1, 1, 1, 1)
        if not self.halved:
            met = self._met(ours, theirs, slice(None), 1, variances)
        else:
            luma = self._met(ours[:, :1], theirs[:, :1], slice(0, 1), 2, variances[:1])
            even = (height + height % 2, width + width % 2)
            half, given = (_averaged(_repeated(planes[:, 1:], *even), rounded=False) for planes in (ours, theirs))
            move = _doubled(self._met(half, given, slice(1, 3), 1, variances[1:] / 4) - half, rounded=False)
            met = torch.cat([luma, ours[:, 1:] + move[..., :height, :width]], dim=1)
        return _mixed(met, TO_RGB, -128.0, 0.0) / 127.5 - 1

    def _met(self, ours: Tensor, theirs: Tensor, which: slice, blocks: int, variance: Tensor) -> Tensor:
        """The posterior mean of planes of 0 to 255, given the decoded ones; `variance` of each, (C, 1, 1, 1, 1)."""
        height, width = ours.shape[-2:]
        table = self.tables[which].to(ours)[:, None, None]
        prior, rounded = (_coefficients(planes, blocks) / table for planes in (ours, theirs))
        rounded = torch.round(rounded)
        share = 1 / (1 + table.square() / (12 * 127.5**2 * variance))  # how much y counts
        mean = prior + share * (rounded - prior)
        return _planes(mean.clamp(rounded - 0.5, rounded + 0.5) * table)[..., :height, :width]

    def _forward(self, x: Tensor) -> Tensor:
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        with torch.no_grad():
            shown = self._decoded(127.5 * (precise + 1)) / 127.5 - 1
        if torch.is_grad_enabled() and x.requires_grad:
            smooth = self._reduced(precise)
            shown = smooth + (shown - smooth.detach())
        return shown.to(x.dtype)

    def _decoded(self, levels: Tensor) -> Tensor:
        """Encode and decode a picture of 0 to 255."""
        _, height, width = self.in_shape
        planes = _levels(_mixed(_levels(levels), TO_YCC, 0.0, 128.0))
        if not self.halved:
            decoded = self._quantised(planes, slice(None), 1)[..., :height, :width]
        else:
            luma = self._quantised(planes[:, :1], slice(0, 1), 2)[..., :height, :width]
            even = _repeated(planes[:, 1:], height + height % 2, width + -width % (2 * BLOCK))
            half = self._quantised(_averaged(even, rounded=True), slice(1, 3), 1)
            half = half[..., : (height + 1) // 2, : (width + 1) // 2]
            decoded = torch.cat([luma, _doubled(half, rounded=True)[..., :height, :width]], dim=1)
        return _levels(_mixed(decoded, TO_RGB, -128.0, 0.0))

    def _quantised(self, planes: Tensor, which: slice, blocks: int) -> Tensor:
        """Planes of 0 to 255, padded to whole blocks, after their DCT coefficients were rounded."""
        table = self.tables[which].to(planes)[:, None, None]
        coefficients = _coefficients(planes, blocks) / table
        coefficients = torch.floor(coefficients.abs() + 0.5) * coefficients.sign() * table  # halves away from 0
        return _levels(_planes(coefficients))

    def _reduced(self, x: Tensor) -> Tensor:
        """The pipeline without rounding: linear."""
        if not self.halved:
            return x
        _, height, width = self.in_shape
        planes = _mixed(x, TO_YCC, 0.0, 0.0)
        even = _repeated(planes[:, 1:], height + height % 2, width + width % 2)
        whole = _doubled(_averaged(even, rounded=False), rounded=False)[..., :height, :width]
        return _mixed(torch.cat([planes[:, :1], whole], dim=1), TO_RGB, 0.0, 0.0)


def quantisation_table(base: Sequence[Sequence[int]], quality: int) -> Tensor:
    """A table of T.81 for a quality as libjpeg scales it, (8, 8), float64: 50 is the table itself, 100 is all 1."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = (torch.tensor(base, dtype=torch.int64) * scale + 50) // 100
    return table.clamp(1, 255).double()


def dct_matrix() -> Tensor:
    """The orthonormal DCT-II of 8 samples, (8, 8), float64."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    matrix = torch.cos((2 * k[None, :] + 1) * k[:, None] * (torch.pi / (2 * BLOCK))) / 2
    matrix[0] /= 2**0.5
    return matrix


def _coefficients(planes: Tensor, blocks: int) -> Tensor:
    """The DCT of planes of 0 to 255, padded to whole blocks: (B, C, H, W) -> (B, C, rows, columns, 8, 8)."""
    height, width = (side + -side % (blocks * BLOCK) for side in planes.shape[-2:])
    padded, dct = _repeated(planes, height, width), dct_matrix().to(planes)
    tiles = padded.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).transpose(-3, -2) - 128
    return dct @ tiles @ dct.T


def _planes(coefficients: Tensor) -> Tensor:
    """The planes of DCT coefficients, padded."""
    dct = dct_matrix().to(coefficients)
    tiles = dct.T @ coefficients @ dct + 128
    return tiles.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def _levels(values: Tensor) -> Tensor:
    """Whole levels from 0 to 255."""
    return torch.round(values).clamp(0, 255)


def _mixed(planes: Tensor, matrix: Sequence[Sequence[float]], before: float, after: float) -> Tensor:
    """The matrix applied to three channels; `before` and `after` are added to the last two. Grey stays as it is."""
    if planes.shape[1] == 1:
        return planes
    offset = planes.new_tensor([0.0, 1.0, 1.0]).view(-1, 1, 1)
    mixed = torch.einsum("ij,bjhw->bihw", planes.new_tensor(matrix), planes + before * offset)
    return mixed + after * offset


def _repeated(planes: Tensor, height: int, width: int) -> Tensor:
    """The last row and column repeated up to a size."""
    return F.pad(planes, (0, width - planes.shape[-1], 0, height - planes.shape[-2]), mode="replicate")


def _averaged(planes: Tensor, rounded: bool) -> Tensor:
    """Means of 2 x 2 pixels. libjpeg rounds a quarter down and three up, a half to either side in turn."""
    mean = F.avg_pool2d(planes, 2)
    if not rounded:
        return mean
    bias = torch.where(torch.arange(mean.shape[-1], device=mean.device) % 2 == 0, 0.25, 0.5).to(mean)
    return torch.floor(mean + bias)


def _doubled(planes: Tensor, rounded: bool) -> Tensor:
    """Twice the sides, by weights of 3/4 and 1/4; the edges repeated."""
    for dim in (-2, -1):
        planes = _doubled_along(planes, dim)
    if not rounded:
        return planes
    even = torch.arange(planes.shape[-1], device=planes.device) % 2 == 0
    return torch.floor(planes + torch.where(even, 8 / 16, 7 / 16).to(planes))


def _doubled_along(planes: Tensor, dim: int) -> Tensor:
    first, last = planes.narrow(dim, 0, 1), planes.narrow(dim, planes.shape[dim] - 1, 1)
    padded = torch.cat([first, planes, last], dim=dim)
    size = planes.shape[dim]
    sides = [0.75 * planes + 0.25 * padded.narrow(dim, start, size) for start in (0, 2)]
    return torch.stack(sides, dim=planes.ndim if dim == -1 else planes.ndim - 1).flatten(dim - 1, dim)
