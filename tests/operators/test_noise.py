"""Noise: what is drawn, how strong it is, and how likely a measurement is under it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from operators import GaussianNoise, Inpainting, Noise, NoNoise, make_noise


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
        ("poisson", 0.1, "there are gaussian, none"),
        ("gaussian", None, "needs a sigma"),
        ("gaussian", -0.1, r"sigma \(on the \[-1, 1\] range\) is -0.1; it must be a finite number, from 0 to 10"),
        ("gaussian", float("nan"), "finite number"),
        ("none", 0.1, "the noise is none"),
    ],
)
def test_a_faulty_noise_is_an_error(name: str, sigma: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_noise(name, sigma)
