"""Greyscale: the colours of a pixel are mixed into one value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator
from torch import Tensor

from operators.base import Operator, Projection, Shape
from operators.spectral import Factors
from operators.validation import check_shape, listed, settings

__all__ = ["LUMA", "Grayscale", "GrayscaleSettings"]

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as JPEG and Pillow have it


def _some(weights: tuple[float, ...]) -> tuple[float, ...]:
    if not any(weights):
        raise ValueError("a weight must not be 0: nothing would be measured")
    return weights


@settings
class GrayscaleSettings:
    """`weights` of the channels, by default those of red, green and blue in BT.601; `project` as in `Operator`."""

    weights: Annotated[tuple[float, ...], AfterValidator(_some), BeforeValidator(listed)] = LUMA
    project: Projection = "published"


class Grayscale(Operator):
    """One channel is measured, a weighted sum of all: y = sum_c w_c x_c. Restoring the image is colourising it.

    (B, C, H, W) -> (B, 1, H, W). With weights of sum 1, y is in [-1, 1]. The adjoint puts w_c y in channel c. `project`
    with "published" has T y = y in every channel: x is shifted to the brightness of y, and keeps its colours where the
    weights' sum is 1. ValueError: another number of weights than of channels, or weights that are all 0.
    """

    Settings: ClassVar[type] = GrayscaleSettings
    stationary = True

    def __init__(self, in_shape: Shape, weights: Sequence[float] = LUMA, *, project: str = "published") -> None:
        channels, height, width = check_shape(in_shape)
        checked = GrayscaleSettings(weights=tuple(weights)).weights
        if len(checked) != channels:
            raise ValueError(f"{len(checked)} weights for an image of {channels} channels; give one for each channel")
        super().__init__(in_shape, (1, height, width), project=project)
        self.weights = torch.tensor(checked, dtype=torch.float64).view(-1, 1, 1)

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: GrayscaleSettings, rngs: Sequence[np.random.Generator]
    ) -> Grayscale:
        return cls(in_shape, settings.weights, project=settings.project)

    @classmethod
    def image_shape(cls, measured: Shape, settings: GrayscaleSettings) -> Shape:
        """As many channels as weights."""
        return len(settings.weights), *measured[1:]

    def _forward(self, x: Tensor) -> Tensor:
        return (x * self.weights.to(x)).sum(dim=1, keepdim=True)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.weights.to(y)

    def _gram(self) -> Tensor:
        return self.weights.square().sum().view(1, 1, 1, 1)

    def _factors(self) -> Factors:
        return Factors(gain=float(self.weights.square().sum()))

    def _published_glue(self, y: Tensor) -> Tensor:
        return self.enlarge(y)
