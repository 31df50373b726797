"""Priors with a known posterior: their eps against autograd, their posteriors against sums over a grid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from pag_inverse.experiments.analytic_priors import GaussianMixture, MixturePrior, independent, smooth, two_modes
from pag_inverse.schedule import BETAS, Schedule

SHAPE, SIZE = (3, 4, 4), 48
BETA = BETAS["linear"]()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixtures() -> dict[str, GaussianMixture]:
    mean = 0.3 * normal(SIZE)
    return {
        "independent": independent(mean, 0.1),
        "smooth": smooth(mean, 0.2, SHAPE, 1.5, 0.01),
        "two modes": two_modes(mean, 0.1 * normal(SIZE, seed=1), 0.1, 0.3),
    }


@pytest.mark.parametrize("name", mixtures())
@pytest.mark.parametrize("t", [0, 300, 999])
def test_eps_is_the_score_of_the_noisy_mixture(name: str, t: int) -> None:
    mixture, abar = mixtures()[name], float((1 - BETA).cumprod()[t])
    spread = abar * mixture.covariances + (1 - abar) * torch.eye(SIZE).double()
    noisy = MixtureSameFamily(Categorical(mixture.weights), MultivariateNormal(abar**0.5 * mixture.means, spread))
    x_t = normal(3, SIZE, seed=2).requires_grad_(True)
    (score,) = torch.autograd.grad(noisy.log_prob(x_t).sum(), x_t)
    eps = MixturePrior(mixture, SHAPE, BETA).predict(x_t.view(3, *SHAPE), t).eps
    torch.testing.assert_close(eps.flatten(1), -((1 - abar) ** 0.5) * score, atol=1e-9, rtol=1e-7)


def test_the_graph_gives_the_covariance_of_the_image_given_x_t() -> None:
    """(1 - abar) / sqrt(abar) d x0 / d x_t = (C^-1 + abar / (1 - abar))^-1 for a Gaussian."""
    mixture, schedule, i = mixtures()["smooth"], Schedule.ddpm(BETA, 1000), 300
    prior, abar = MixturePrior(mixture, SHAPE, BETA), float(schedule.abar[i])

    def x0(x_t: Tensor) -> Tensor:
        z = x_t.view(1, *SHAPE)
        return schedule.predict_x0(z, prior.predict(z, i).eps, i).flatten()

    found = (1 - abar) / abar**0.5 * torch.autograd.functional.jacobian(x0, normal(SIZE, seed=3))
    expected = torch.linalg.inv(torch.linalg.inv(mixture.covariances[0]) + abar / (1 - abar) * torch.eye(SIZE).double())
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-7)


def test_a_latent_state_is_the_image_in_another_basis() -> None:
    mixture, basis, x_t = mixtures()["two modes"], torch.linalg.qr(normal(SIZE, SIZE))[0], normal(2, *SHAPE, seed=4)
    latent, pixel = MixturePrior(mixture, SHAPE, BETA, basis), MixturePrior(mixture, SHAPE, BETA)
    z_t = latent.encode(x_t)
    torch.testing.assert_close(latent.decode(z_t), x_t)
    torch.testing.assert_close(latent.decode(latent.predict(z_t, 200).eps), pixel.predict(x_t, 200).eps)
    assert not torch.allclose(z_t, x_t)


def test_the_posterior_of_two_entries_equals_sums_over_a_grid() -> None:
    weights, means = torch.tensor([0.3, 0.7]).double(), torch.tensor([[0.5, -0.2], [-0.4, 0.6]]).double()
    covariances = torch.tensor([[[0.2, 0.05], [0.05, 0.1]], [[0.1, -0.02], [-0.02, 0.3]]]).double()
    prior, sigma = GaussianMixture(weights, means, covariances), 0.3
    matrix, y = torch.tensor([[1.0, 0.5], [0.0, 0.0]]).double(), torch.tensor([0.4, 9.0]).double()
    posterior = prior.posterior(matrix, y, sigma)
    x = torch.cartesian_prod(*(torch.linspace(-4, 4, 801).double(),) * 2)
    each = weights.log() + MultivariateNormal(means, covariances).log_prob(x[:, None])
    each = (each - ((y - x @ matrix.T) ** 2).sum(dim=1, keepdim=True) / (2 * sigma**2)).double()
    share = torch.softmax(each.flatten(), dim=0).view_as(each)
    whole = share.sum(dim=1)
    mean = whole @ x
    torch.testing.assert_close(posterior.weights, share.sum(dim=0), atol=1e-6, rtol=0)
    torch.testing.assert_close(posterior.mean, mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(posterior.covariance, ((x - mean) * whole[:, None]).T @ (x - mean), atol=1e-6, rtol=0)


def test_draws_have_the_mean_and_the_covariance() -> None:
    mixture = mixtures()["two modes"]
    draws = mixture.sample(20_000, torch.Generator().manual_seed(0))
    assert (draws.mean(dim=0) - mixture.mean).abs().max() < 0.013
    assert (draws.T.cov() - mixture.covariance).abs().max() < 0.013


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of images \(3, 4, 4\), not \(3, 8, 8\)"):
        MixturePrior(mixtures()["smooth"], SHAPE, BETA).state_shape((3, 8, 8))
