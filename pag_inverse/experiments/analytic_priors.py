"""Priors whose posterior is known in closed form: Gaussians and mixtures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pag_inverse.priors.base import Draw, Prediction, Prior
from pag_inverse.schedule import Floats, T


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k weights[k] N(means[k], covariances[k]) of flat images of d entries: (K,), (K, d), (K, d, d), float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @cached_property
    def spectra(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues (K, d) and eigenvectors (K, d, d) of the covariances."""
        values, vectors = torch.linalg.eigh(self.covariances)
        return values.clamp(min=0), vectors

    @cached_property
    def mean(self) -> Tensor:
        """E x, (d,)."""
        return self.weights @ self.means

    @cached_property
    def covariance(self) -> Tensor:
        """E (x - E x)(x - E x)^T, (d, d): that within the components, and that between them."""
        apart = self.means - self.mean
        within = (self.weights[:, None, None] * self.covariances).sum(dim=0)
        return within + (apart * self.weights[:, None]).T @ apart

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` draws, (count, d)."""
        values, vectors = self.spectra
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        n = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[k] + torch.einsum("bij,bj->bi", vectors[k], values[k].sqrt() * n)

    def posterior(self, matrix: Tensor, y: Tensor, sigma: float) -> GaussianMixture:
        """p(x | y) for y = A x + sigma n, with A (m, d) and y (m,).

        With S = A C A^T + sigma^2 and K = C A^T S^-1, a component has the mean mu + K (y - A mu), the covariance
        C - K A C, and the weight of the prior times N(y; A mu, S).
        """
        across = self.covariances @ matrix.T
        spread = matrix @ across + sigma**2 * torch.eye(len(matrix), dtype=y.dtype)
        left = y - self.means @ matrix.T
        gain = torch.linalg.solve(spread, across.mT).mT
        evidence = torch.distributions.MultivariateNormal(torch.zeros_like(left), spread).log_prob(left)
        covariances = self.covariances - gain @ across.mT
        return GaussianMixture(
            torch.softmax(self.weights.log() + evidence, dim=0),
            self.means + torch.einsum("kdm,km->kd", gain, left),
            (covariances + covariances.mT) / 2,
        )


class MixturePrior(Prior):
    """The exact eps of images of `shape` (C, H, W) that are drawn from a mixture, with a graph, computed in float64.

    eps(x_t, t) = -sqrt(1 - abar) grad log p_t(x_t) (Song et al., 2021), where p_t is the mixture of the components
    N(sqrt(abar) mu, abar C + 1 - abar). With `basis`, an orthogonal matrix (d, d), the state is a latent z of the
    same shape, and x = basis z.
    """

    def __init__(
        self, mixture: GaussianMixture, shape: Sequence[int], betas: Floats, basis: Tensor | None = None
    ) -> None:
        self.mixture, self.shape, self.basis = mixture, tuple(shape), basis
        self.betas, self.name, self.multiple, self.image_size = betas, "analytic", 1, shape[-1]
        self.abar = np.cumprod(1 - np.asarray(betas, dtype=np.float64))

    @property
    def device(self) -> torch.device:
        return self.mixture.means.device

    def networks(self) -> list[Any]:
        """None."""
        return []

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the image."""
        if tuple(image_shape) != self.shape:
            raise ValueError(f"prior {self.name} is of images {self.shape}, not {tuple(image_shape)}: build another")
        return self.shape

    def decode(self, z: Tensor) -> Tensor:
        """basis z."""
        return z if self.basis is None else (z.flatten(1).double() @ self.basis.T).view_as(z).to(z.dtype)

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """basis^T x: exact, so that there is nothing to draw."""
        return x if self.basis is None else (x.flatten(1).double() @ self.basis).view_as(x).to(x.dtype)

    def predict(self, z: Tensor, t: int, condition: Tensor | None = None, *, network: Any = None) -> Prediction:
        """The exact eps of a state z (B, C, H, W)."""
        abar = float(self.abar[min(int(t), T - 1)])
        values, vectors = self.mixture.spectra
        variances = (abar * values + 1 - abar)[:, None]
        apart = self.decode(z.double()).flatten(1) - abar**0.5 * self.mixture.means[:, None]
        inner = apart @ vectors  # (K, B, d), in the eigenvectors of each component
        scaled = inner / variances
        evidence = -((inner * scaled).sum(dim=2) + variances.log().sum(dim=2)) / 2
        shares = torch.softmax(self.mixture.weights.log()[:, None] + evidence, dim=0)
        eps = (1 - abar) ** 0.5 * (shares[..., None] * (scaled @ vectors.mT)).sum(dim=0)
        return Prediction(self.encode(eps.view_as(z)).to(z.dtype), None)


def independent(mean: Tensor, variance: float) -> GaussianMixture:
    """N(mean, variance I) for a mean of d entries."""
    return GaussianMixture(torch.ones(1, dtype=mean.dtype), mean[None], variance * torch.eye(len(mean))[None].double())


def smooth(mean: Tensor, variance: float, shape: Sequence[int], length: float, floor: float) -> GaussianMixture:
    """A Gaussian whose covariance falls with the square of the distance along rows and columns.

    C = variance (I x K_H x K_W) + floor I, with K[i, j] = exp(-(i - j)^2 / (2 length^2)).
    """
    channels, *sides = shape
    covariance = variance * torch.eye(channels, dtype=torch.float64)
    for side in sides:
        apart = torch.arange(side)[:, None] - torch.arange(side)[None]
        covariance = torch.kron(covariance, torch.exp(-apart.double().square() / (2 * length**2)))
    covariance = covariance + floor * torch.eye(len(mean), dtype=torch.float64)
    return GaussianMixture(torch.ones(1, dtype=mean.dtype), mean[None], covariance[None])


def two_modes(mean: Tensor, apart: Tensor, variance: float, weight: float) -> GaussianMixture:
    """weight N(mean + apart, variance I) + (1 - weight) N(mean - apart, variance I)."""
    weights = torch.tensor([weight, 1 - weight], dtype=torch.float64)
    covariance = variance * torch.eye(len(mean), dtype=torch.float64)
    return GaussianMixture(weights, torch.stack([mean + apart, mean - apart]), covariance.expand(2, -1, -1))
