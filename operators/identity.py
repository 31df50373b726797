"""The identity: nothing but noise is between the image and its measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from operators.base import Operator, Projection, Shape
from operators.spectral import Factors
from operators.validation import settings

__all__ = ["Identity", "IdentitySettings"]


@settings
class IdentitySettings:
    """`project` as in `Operator`: both choices are the same here."""

    project: Projection = "published"


class Identity(Operator):
    """The image itself is measured: y = x. With noise, restoring it is denoising."""

    Settings: ClassVar[type] = IdentitySettings
    stationary = True

    def __init__(self, in_shape: Shape, *, project: str = "published") -> None:
        super().__init__(in_shape, in_shape, project=project)

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: IdentitySettings, rngs: Sequence[np.random.Generator]
    ) -> Identity:
        return cls(in_shape, project=settings.project)

    def _forward(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    def _entries(self) -> Tensor:
        return torch.ones(1, 1, 1, 1)

    def _factors(self) -> Factors:
        return Factors()
