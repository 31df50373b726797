"""Noise: what is drawn, how strong it is, and how likely a measurement is under it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from operators import GaussianNoise, Inpainting, Noise, NoNoise, PoissonNoise, make_noise


def images(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_gaussian_noise_is_sigma_times_the_draw() -> None:
    noise, y = make_noise("gaussian", 0.05), torch.full((2, 3, 4, 5), 0.5)
    assert noise.sigma == 0.05 and noise.value_range == (-1.0, 1.0)
    noisy = noise(y, lambda shape: torch.arange(120.0, dtype=torch.float64).reshape(shape))
    assert noisy.dtype == y.dtype
    torch.testing.assert_close(noisy, y + 0.05 * torch.arange(120.0).reshape(y.shape))


def test_no_noise_draws_nothing() -> None:
    y = torch.ones(1, 1, 2, 2)
    noise = make_noise("none")
    assert noise.sigma == 0.0 and torch.equal(noise(y, pytest.fail), y)


def test_the_likelihood_is_scipys_of_each_image() -> None:
    y, prediction = images(1), images(2)
    expected = -scipy.stats.norm.logpdf(y.numpy(), prediction.numpy(), 0.3).sum(axis=(1, 2, 3))
    found = GaussianNoise(0.3).negative_log_likelihood(y, prediction)
    assert found.shape == (2,)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13)


def test_the_likelihood_counts_what_was_observed() -> None:
    mask = np.ones((2, 4, 5))
    mask[0, 1:3, 1:3], mask[1, 0] = 0, 0
    y, prediction = images(1), images(2)
    observed = Inpainting(mask, (3, 4, 5)).observation_mask(y)
    expected = [-scipy.stats.norm.logpdf(y[b][m], prediction[b][m], 0.3).sum() for b, m in enumerate(observed.bool())]
    y[observed == 0] = float("nan")
    found = GaussianNoise(0.3).negative_log_likelihood(y, prediction, observed)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13)


def test_the_likelihood_has_a_gradient() -> None:
    y, prediction = images(1), images(2).requires_grad_()
    (gradient,) = torch.autograd.grad(GaussianNoise(0.3).negative_log_likelihood(y, prediction).sum(), prediction)
    torch.testing.assert_close(gradient, (prediction - y) / 0.09)


def test_half_precision_is_summed_in_float32() -> None:
    y, prediction = images(1, torch.bfloat16), images(2, torch.bfloat16)
    found = GaussianNoise(0.3).negative_log_likelihood(y, prediction)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), GaussianNoise(0.3).negative_log_likelihood(y.double(), prediction.double())
    )


def test_the_standard_deviation_is_that_of_the_draws() -> None:
    noise, y = GaussianNoise(0.2), torch.zeros(1, 1, 100, 100)
    noisy = noise(y, lambda shape: torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    std = noise.std(y)
    assert std.shape == y.shape and float(noisy.std()) == pytest.approx(float(std.mean()), rel=0.02)
    assert torch.equal(NoNoise().std(y), torch.zeros_like(y))


@pytest.mark.parametrize("noise", [NoNoise(), GaussianNoise(0.0)])
def test_without_noise_only_the_exact_measurement_is_possible(noise: Noise) -> None:
    y = images(1, torch.float32)
    prediction, observed = y.clone(), torch.ones_like(y)
    prediction[1, 0, 0, 0] += 1
    assert noise.negative_log_likelihood(y, prediction).tolist() == [0.0, float("inf")]
    observed[1, 0, 0, 0] = 0
    assert noise.negative_log_likelihood(y, prediction, observed).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "sigma", "message"),
    [
        ("salt", 0.1, "there are gaussian, none, poisson"),
        ("poisson", 0.1, "sigma is 0.1, but the noise is poisson: give a peak, the photons at white"),
        ("poisson", None, "give a peak"),
        ("gaussian", None, "needs a sigma"),
        ("gaussian", -0.1, r"sigma \(on the \[-1, 1\] range\) is -0.1; it must be a finite number, from 0 to 10"),
        ("gaussian", float("nan"), "finite number"),
        ("none", 0.1, "the noise is none"),
    ],
)
def test_a_faulty_noise_is_an_error(name: str, sigma: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_noise(name, sigma)


@pytest.mark.parametrize(
    ("name", "peak", "message"),
    [
        ("poisson", 0.0, r"peak \(photons at white\) is 0.0; it must be a finite number, from 0.1 to 1e\+06"),
        ("poisson", float("inf"), "peak .* is inf"),
        ("gaussian", 100.0, "peak is 100.0; it is of poisson noise alone: give a sigma"),
        ("none", 100.0, "peak is 100.0; it is of poisson noise alone"),
    ],
)
def test_a_faulty_peak_is_an_error(name: str, peak: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_noise(name, peak=peak)
    with pytest.raises(ValueError, match="give one of them"):
        make_noise("poisson", 0.1, peak=100.0)


def spread_evenly(count: int) -> Callable[[tuple[int, ...]], Tensor]:
    """The draws of N(0, 1) whose shares Phi(z) are evenly spread: a histogram is exact up to 1 / count."""
    z = torch.from_numpy(scipy.stats.norm.ppf((np.arange(count) + 0.5) / count))
    return lambda shape: z.expand(shape)


@pytest.mark.parametrize("peak", [0.5, 20.0, 1000.0])
def test_counts_have_poissons_distribution(peak: float) -> None:
    """The mean, the variance and the probability of each count, at every brightness."""
    noise, levels = make_noise("poisson", peak=peak), torch.tensor([-1.0, -0.9, 0.0, 0.7, 1.0])
    y = noise(levels.double().view(1, 5, 1, 1).expand(1, 5, 1, 100_000), spread_evenly(100_000))
    counts = (peak * (y[0, :, 0] + 1) / 2).numpy()
    np.testing.assert_allclose(counts, counts.round(), rtol=0, atol=1e-9)
    means = peak * (levels.double().numpy() + 1) / 2
    np.testing.assert_allclose(counts.mean(axis=1), means, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(counts.var(axis=1), means, rtol=5e-3, atol=1e-3)
    for found, mean in zip(counts, means, strict=True):
        k = np.arange(int(found.max()) + 1)
        share = np.bincount(found.round().astype(int)) / len(found)
        np.testing.assert_allclose(share, scipy.stats.poisson.pmf(k, mean), rtol=0, atol=2e-5)
    deviations = noise.std(levels.double()).numpy()
    np.testing.assert_allclose(deviations, 2 * np.sqrt(means) / peak)
    assert noise.sigma == pytest.approx(float(deviations[2]))


def test_counts_are_scipys_quantiles_of_the_draws() -> None:
    noise, x, z = PoissonNoise(30.0), images(1).clamp(-1, 1), images(2)
    expected = scipy.stats.poisson.ppf(scipy.stats.norm.cdf(z.numpy()), 15.0 * (x.numpy() + 1))
    np.testing.assert_array_equal((15.0 * (noise(x, lambda shape: z).numpy() + 1)).round(9), expected)
    brighter = noise((x + 0.3).clamp(max=1), lambda shape: z)
    assert bool((brighter >= noise(x, lambda shape: z)).all())


def test_black_has_no_photons_and_nan_stays_where_it_is() -> None:
    noise = PoissonNoise(100.0)
    x = torch.tensor([[-1.0, -1.5, float("nan"), 1.0]]).view(1, 1, 2, 2)
    y = noise(x, lambda shape: torch.full(shape, 40.0))
    assert y.dtype == torch.float32 and y.flatten()[:2].tolist() == [-1.0, -1.0]
    assert bool(y.flatten()[2].isnan()) and 1.0 < float(y.flatten()[3]) < 3.0
    assert noise(x.bfloat16(), torch.zeros).dtype == torch.bfloat16


def test_the_likelihood_of_counts_is_scipys() -> None:
    noise, x = PoissonNoise(30.0), images(1).clamp(-1, 1)
    y = noise(x, torch.randn)
    k = np.round(15.0 * (y.numpy() + 1))
    expected = -scipy.stats.poisson.logpmf(k, 15.0 * (x.numpy() + 1))
    observed = torch.ones_like(y)
    observed[0, 0] = 0
    found = noise.negative_log_likelihood(y, x, observed)
    np.testing.assert_allclose(found.numpy(), (expected * observed.numpy()).sum(axis=(1, 2, 3)), rtol=1e-9)
    dark = noise.negative_log_likelihood(torch.zeros(1, 1, 1, 1), -torch.ones(1, 1, 1, 1))
    assert dark.tolist() == [float("inf")]  # black gives no photon


@pytest.mark.parametrize("mean", [-0.5, 0.0, 0.5])
def test_the_normal_that_stands_for_counts_gives_nearly_their_posterior(mean: float) -> None:
    """Of pixels of N(mean, 0.1): against the exact posterior by summation over a grid."""
    noise, variance = PoissonNoise(100.0), 0.1
    x = mean + variance**0.5 * torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 1, 2000)))
    y = noise(x, lambda shape: torch.from_numpy(np.random.default_rng(1).normal(size=shape)))
    grid = np.linspace(-1, 3, 4001)
    k = np.round(50 * (y.numpy().ravel() + 1))
    log = scipy.stats.poisson.logpmf(k[:, None], 50 * (grid + 1)) - (grid - mean) ** 2 / (2 * variance)
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    exact = weight @ grid
    deviation = np.sqrt(weight @ grid**2 - exact**2)
    centre, std = (part.numpy().ravel() for part in noise.normal(y))
    found = (mean / variance + centre / std**2) / (1 / variance + 1 / std**2)
    assert abs((found - exact).mean()) < 0.03 * deviation.mean()
    assert np.sqrt(((found - exact) ** 2).mean()) < 0.08 * deviation.mean()
    width = np.sqrt((1 / (1 / variance + 1 / std**2)).mean())
    assert width == pytest.approx(np.sqrt((deviation**2).mean()), rel=0.03)
    assert GaussianNoise(0.1).normal(y) is None
