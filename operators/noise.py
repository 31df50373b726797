"""Measurement noise."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.validation import LARGEST_PEAK, LARGEST_SIGMA, SMALLEST_PEAK, check_number

__all__ = ["Draw", "GaussianNoise", "NoNoise", "Noise", "PoissonNoise"]

Draw = Callable[[tuple[int, ...]], Tensor]


class Noise(abc.ABC):
    """Noise n of a measurement y = A(x) + n. `sigma` is its standard deviation on images of `value_range`; where it
    depends on the image, that of mid-grey."""

    sigma: float
    value_range: tuple[float, float] = (-1.0, 1.0)

    @classmethod
    @abc.abstractmethod
    def from_sigma(cls, sigma: float | None) -> Noise:
        """The noise of this standard deviation; ValueError where it has no meaning."""

    @classmethod
    def from_peak(cls, peak: float) -> Noise:
        """The noise of so many photons at white; ValueError where it has no meaning."""
        raise ValueError(f"peak is {peak}; it is of poisson noise alone: give a sigma")

    def __str__(self) -> str:
        return f"sigma {self.sigma:g} on [-1, 1]"

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

    def normal(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The mean and the standard deviation of the normal that is nearest to the likelihood of A(x), tensors like y.

        None where it is N(y, sigma^2).
        """
        return None


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


class PoissonNoise(Noise):
    """Photons are counted: y = 2 k / peak - 1 with k ~ Poisson(peak (A(x) + 1) / 2).

    `peak` is the mean count at white; black has none. The standard deviation is 2 sqrt(k) / peak: `sigma` is that of
    mid-grey, sqrt(2 / peak). Below black, A(x) counts as black. It is meant for measurements on the range [-1, 1].
    ValueError: a peak that is below 0.1, above 1e6 or not finite.
    """

    def __init__(self, peak: float) -> None:
        self.peak = check_number("peak (photons at white)", peak, SMALLEST_PEAK, LARGEST_PEAK)
        self.sigma = math.sqrt(2 / self.peak)

    @classmethod
    def from_sigma(cls, sigma: float | None) -> PoissonNoise:
        raise ValueError(f"sigma is {sigma}, but the noise is poisson: give a peak, the photons at white")

    @classmethod
    def from_peak(cls, peak: float) -> PoissonNoise:
        return cls(peak)

    def __str__(self) -> str:
        return f"poisson noise, {self.peak:g} photons at white"

    def __call__(self, y: Tensor, draw: Draw) -> Tensor:
        """The quantiles Phi(z) for draws z: a count rises with its z."""
        z, mean = (values.detach().double().cpu().numpy() for values in (draw(tuple(y.shape)), self.photons(y)))
        counts = torch.from_numpy(poisson_quantile(z, mean))
        return (2 * counts / self.peak - 1).to(y)

    def std(self, prediction: Tensor) -> Tensor:
        return 2 * self.photons(prediction).sqrt() / self.peak

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum_i lambda_i - k_i log lambda_i + log(k_i!), (B,), for the means lambda and counts k; see `photons`."""
        k, mean = self.photons(_precise(y)), self.photons(_precise(prediction))
        return _summed(mean - torch.xlogy(k, mean) + torch.lgamma(k + 1), observed)

    def normal(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """N(k + min(k, 1), k + 1) in photons (Mighell, 1999): unlike N(k, k), it does not lean to few photons.

        Of independent pixels of mean 0 and variance 0.1 at peak 100, the posterior mean is 0.03 of its deviation off on
        average; with N(k, k), 0.13 too dark.
        """
        k = self.photons(y)
        return 2 * (k + k.clamp(max=1)) / self.peak - 1, 2 * (k + 1).sqrt() / self.peak

    def photons(self, y: Tensor) -> Tensor:
        """peak (y + 1) / 2, at least 0: a tensor like y."""
        return (self.peak * (y + 1) / 2).clamp(min=0)


def poisson_quantile(z: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest count k with P(K <= k) >= Phi(z) for K ~ Poisson(mean), 0 where the mean is 0."""
    from scipy import special

    share = special.ndtr(np.clip(z, -8.0, 8.0))  # beyond 8.3, Phi(z) is 1
    upper = np.ceil(special.pdtrik(share, np.maximum(mean, 1e-300)))
    lower = np.maximum(upper - 1, 0)
    count: NDArray[np.float64] = np.where(special.pdtr(lower, mean) >= share, lower, upper)
    return np.where(mean > 0, count, 0 * mean)  # of NaN, NaN


def _precise(y: Tensor) -> Tensor:
    return y.to(torch.promote_types(y.dtype, torch.float32))


def _summed(terms: Tensor, observed: Tensor | None) -> Tensor:
    """The sum of each image's terms, (B,), of what was observed: the rest may be anything, NaN included."""
    return (terms if observed is None else terms.where(observed != 0, 0.0)).flatten(1).sum(dim=1)
