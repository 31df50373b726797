"""Overexposure: what is brighter than white is clipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.special import log_ndtr

from operators.base import Operator, Projection, Shape
from operators.validation import settings

__all__ = ["Clip", "ClipSettings"]

SMALLEST_SIGMA = 1e-3  # without noise the odds of the two parts are infinite

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

    def _posterior_mean(self, x: Tensor, y: Tensor, sigma: float, variance: float, iterations: int) -> Tensor:
        """Exact for z <= 1: z is below the light that is white, or above it, where y is white and noise. sigma is at
        least 1e-3.
        """
        prior, seen, noise = x.double(), y.double(), max(sigma, SMALLEST_SIGMA) ** 2
        white, total = 2 / self.gain - 1, noise + self.gain**2 * variance
        apart = seen - (self.gain * (prior + 1) - 1)
        mean, spread = prior + self.gain * variance / total * apart, (noise * variance / total) ** 0.5
        below, if_below = _truncated(mean, spread, -math.inf, white)
        above, if_above = _truncated(prior, variance**0.5, white, max(1.0, white))
        odds = below - apart.square() / (2 * total) - math.log(total) / 2
        odds = odds - (above - (seen - 1).square() / (2 * noise) - math.log(noise) / 2)
        return torch.lerp(if_above, if_below, odds.sigmoid()).to(x.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        bright = self.gain * (x + 1) - 1
        return bright + (bright.clamp(max=1) - bright).detach()


def _truncated(mean: Tensor, std: float, low: float, high: float) -> tuple[Tensor, Tensor]:
    """log P(low < z < high) of z ~ N(mean, std^2), and the mean of z there."""
    a, b = (low - mean) / std, (high - mean) / std
    a, b, sign = torch.where(a > 0, -b, a), torch.where(a > 0, -a, b), torch.where(a > 0, -1.0, 1.0)  # the lower tail
    mass = log_ndtr(b) + torch.log1p(-torch.exp(log_ndtr(a) - log_ndtr(b)))
    density = [torch.exp(-t.square() / 2 - math.log(2 * math.pi) / 2 - mass) for t in (a, b)]
    inside = mean + sign * std * (density[0] - density[1])
    return mass, inside.clamp(low, high)
