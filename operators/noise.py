"""Measurement noise."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

from torch import Tensor

__all__ = ["Draw", "GaussianNoise", "NoNoise", "Noise"]

Draw = Callable[[tuple[int, ...]], Tensor]


class Noise(abc.ABC):
    """Noise n of a measurement y = A(x) + n. `sigma` is its standard deviation on images of `value_range`."""

    sigma: float
    value_range: tuple[float, float] = (-1.0, 1.0)

    @classmethod
    @abc.abstractmethod
    def from_sigma(cls, sigma: float | None) -> Noise:
        """The noise of this standard deviation; ValueError where it has no meaning."""

    @abc.abstractmethod
    def __call__(self, y: Tensor, draw: Draw) -> Tensor:
        """y degraded, with draw(shape) giving the samples of N(0, 1); the shape, dtype and device of y."""


class GaussianNoise(Noise):
    """White Gaussian noise, y + sigma z with z ~ N(0, 1).

    `sigma` is on the [-1, 1] range (the tables' 0.05 is 0.025 on [0, 1]); the result is not clipped.
    ValueError: a sigma that is negative or not finite.
    """

    def __init__(self, sigma: float) -> None:
        if not 0.0 <= sigma < math.inf:
            raise ValueError(f"sigma is {sigma}; it is a number, 0 or more, on the [-1, 1] range")
        self.sigma = float(sigma)

    @classmethod
    def from_sigma(cls, sigma: float | None) -> GaussianNoise:
        if sigma is None:
            raise ValueError("gaussian noise needs a sigma, on the [-1, 1] range; the tables have 0.05")
        return cls(sigma)

    def __call__(self, y: Tensor, draw: Draw) -> Tensor:
        return y + self.sigma * draw(tuple(y.shape)).to(y)


class NoNoise(Noise):
    """The measurement as it is: sigma is 0 and nothing is drawn."""

    sigma = 0.0

    @classmethod
    def from_sigma(cls, sigma: float | None) -> NoNoise:
        if sigma:
            raise ValueError(f"sigma is {sigma}, but the noise is none; leave sigma out, or take gaussian")
        return cls()

    def __call__(self, y: Tensor, draw: Draw) -> Tensor:
        return y
