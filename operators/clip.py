"""Overexposure: what is brighter than white is clipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from operators.base import Operator, Projection, Shape
from operators.validation import settings

__all__ = ["Clip", "ClipSettings"]

Gain = Annotated[float, Field(gt=0, le=1000)]


@settings
class ClipSettings:
    """`gain`, how many times more light there is: 2 is one stop; `project` as in `Operator`."""

    gain: Gain
    project: Projection = "published"


class Clip(Operator):
    """Light is multiplied by a gain and clipped at white: y = 2 min(gain p, 1) - 1 of the light p = (x + 1) / 2.

    That is min(gain (x + 1) - 1, 1): black, x = -1, stays black. It is not linear. The gradient is gain everywhere, as
    if nothing was clipped. That of the minimum is 0 where x is clipped: a solver whose x is too bright there could
    not make it darker. Where y is white too, there is nothing left to follow but noise.
    """

    linear = False
    Settings: ClassVar[type] = ClipSettings

    def __init__(self, in_shape: Shape, gain: float, *, project: str = "published") -> None:
        super().__init__(in_shape, in_shape, project=project)
        self.gain = ClipSettings(gain=gain).gain

    @classmethod
    def _from_settings(cls, in_shape: Shape, settings: ClipSettings, rngs: Sequence[np.random.Generator]) -> Clip:
        return cls(in_shape, settings.gain, project=settings.project)

    def _forward(self, x: Tensor) -> Tensor:
        bright = self.gain * (x + 1) - 1
        return bright + (bright.clamp(max=1) - bright).detach()
