"""Phase retrieval: the strength of each spatial frequency is measured, and where it lies is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from operators.base import Operator, Projection, Shape
from operators.validation import check_shape, settings

__all__ = ["PhaseRetrieval", "PhaseRetrievalSettings"]

Oversampling = Annotated[float, Field(ge=1, le=8)]


@settings
class PhaseRetrievalSettings:
    """`oversampling`, how many times longer the padded sides are; `project` as in `Operator`."""

    oversampling: Oversampling = 2.0
    project: Projection = "published"


class PhaseRetrieval(Operator):
    """The amplitude of the Fourier transform of each channel: y = |F(pad(p))|, p = (x + 1) / 2 (Chung et al., 2023).

    The image is brought to [0, 1], so that the zeros around it are black, and F is unitary: ||y|| = ||p||. y is at
    least 0, and not on the range [-1, 1]: its mean square is that of p over oversampling^2, its largest entry is that
    of frequency 0, sum p / sqrt(n) for n padded pixels. The noise's sigma is on this scale. With a padding to twice
    the sides, an image is determined but for a shift and a rotation by 180 degrees. y has the sides
    ceil(oversampling H) and ceil(oversampling W). It is not linear; its gradient is 0 where an amplitude is 0.
    """

    linear = False
    Settings: ClassVar[type] = PhaseRetrievalSettings

    def __init__(self, in_shape: Shape, oversampling: float = 2.0, *, project: str = "published") -> None:
        channels, height, width = check_shape(in_shape)
        factor = PhaseRetrievalSettings(oversampling=oversampling).oversampling
        padded = math.ceil(factor * height), math.ceil(factor * width)
        super().__init__(in_shape, (channels, *padded), project=project)

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: PhaseRetrievalSettings, rngs: Sequence[np.random.Generator]
    ) -> PhaseRetrieval:
        return cls(in_shape, settings.oversampling, project=settings.project)

    @classmethod
    def image_shape(cls, measured: Shape, settings: PhaseRetrievalSettings) -> Shape:
        """The longest sides that are padded to those of `measured`."""
        channels, height, width = measured
        return channels, int(height / settings.oversampling), int(width / settings.oversampling)

    def enlarge(self, y: Tensor) -> Tensor:
        """log(1 + y) with frequency 0 in the middle, from -1 (none) to 1 (the largest of the image), at in_shape."""
        shown = torch.fft.fftshift(y.clamp(min=0).log1p(), dim=(-2, -1))
        largest = shown.flatten(1).amax(dim=1)[:, None, None, None].clamp(min=torch.finfo(y.dtype).tiny)
        return super().enlarge(2 * shown / largest - 1)

    def _forward(self, x: Tensor) -> Tensor:
        light = (x.to(torch.promote_types(x.dtype, torch.float32)) + 1) / 2  # half precision has no FFT everywhere
        waves: Tensor = torch.fft.fft2(light, s=self.out_shape[1:], norm="ortho")
        return waves.abs().to(x.dtype)
