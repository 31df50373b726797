"""Measurement noise."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.validation import LARGEST_SIGMA, check_number

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

    @abc.abstractmethod
    def std(self, prediction: Tensor) -> Tensor:
        """The standard deviation of each entry of y where A(x) is `prediction`: a tensor like it."""

    @abc.abstractmethod
    def negative_log_likelihood(self, y: Tensor, prediction: Tensor, observed: Tensor | None = None) -> Tensor:
        """-log p(y | A(x) = prediction) of each image, (B,), in float32 or better.

        Only entries count where `observed`, a tensor like y such as `Operator.observation_mask` gives, is not 0;
        None counts all of them.
        """


class GaussianNoise(Noise):
    """White Gaussian noise, y + sigma z with z ~ N(0, 1).

    `sigma` is on the [-1, 1] range (the tables' 0.05 is 0.025 on [0, 1]); the result is not clipped.
    ValueError: a sigma that is negative, not finite or above 10.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma = check_number("sigma (on the [-1, 1] range)", sigma, maximum=LARGEST_SIGMA)

    @classmethod
    def from_sigma(cls, sigma: float | None) -> GaussianNoise:
        if sigma is None:
            raise ValueError("gaussian noise needs a sigma, on the [-1, 1] range; the tables have 0.05")
        return cls(sigma)

    def __call__(self, y: Tensor, draw: Draw) -> Tensor:
        return y + self.sigma * draw(tuple(y.shape)).to(y)

    def std(self, prediction: Tensor) -> Tensor:
        return torch.full_like(prediction, self.sigma)

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum_i (y_i - prediction_i)^2 / (2 sigma^2) + log(sigma sqrt(2 pi)), (B,); as without noise if sigma is 0."""
        if self.sigma == 0:
            return NoNoise().negative_log_likelihood(y, prediction, observed)
        scaled = (_precise(y) - _precise(prediction)) / self.sigma
        return _summed(scaled.square() / 2 + math.log(self.sigma * math.sqrt(2 * math.pi)), observed)


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

    def std(self, prediction: Tensor) -> Tensor:
        return torch.zeros_like(prediction)

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor, observed: Tensor | None = None) -> Tensor:
        """0 for an image that y agrees with exactly, infinite for any other, (B,)."""
        apart = _precise(y) != _precise(prediction)
        return _summed(torch.where(apart, math.inf, 0.0), observed).to(_precise(y).dtype)


def _precise(y: Tensor) -> Tensor:
    return y.to(torch.promote_types(y.dtype, torch.float32))


def _summed(terms: Tensor, observed: Tensor | None) -> Tensor:
    """The sum of each image's terms, (B,), of what was observed: the rest may be anything, NaN included."""
    return (terms if observed is None else terms.where(observed != 0, 0.0)).flatten(1).sum(dim=1)
