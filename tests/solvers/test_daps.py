"""DAPS: posteriors known in closed form, both readings of the guidance, any operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import Blur, GaussianBlur, GaussianNoise, Inpainting, SuperResolution
from pag_inverse import (
    DAPS,
    InverseProblem,
    LatentDAPS,
    NoGuidance,
    PerturbedAttentionGuidance,
    PixelPrior,
    Prior,
    Solver,
    make_solver,
    solve,
)
from pag_inverse.runtime.streams import batch_draw
from pag_inverse.solvers.data_term import gain

SHAPE = (3, 32, 32)
NOISE = GaussianNoise(0.1)
# Langevin steps that reach their posterior, with the noise's own standard deviation in the data term.
EXACT: dict[str, Any] = {"tau": None, "lr": 1e-3, "lr_ratio": 1.0, "ode_steps": 5, "sigma_max": 100.0}
COUNT = 16


@pytest.mark.parametrize("kind", [DAPS, LatentDAPS])
def test_the_gaussian_posterior(kind: type[Solver], gaussian: Callable[[float, float], Prior]) -> None:
    """N(0.2, 0.3^2) measured with noise 0.1: w = 0.9, posterior N(0.2 + w (y - 0.2), 0.1^2 w)."""
    prior, operator = gaussian(0.2, 0.3), Inpainting(torch.ones(32, 32), SHAPE)
    truth = 0.2 + 0.3 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4))
    y = NOISE(truth, batch_draw([1]))
    solver = kind(**EXACT)
    ys = y.expand(COUNT, -1, -1, -1).contiguous()
    x = solve(ys, operator, prior, solver, NoGuidance(), noise=NOISE, steps=60, seeds=list(range(COUNT))).x
    mean, std = 0.2 + 0.9 * (y[0] - 0.2), 0.1 * 0.9**0.5
    assert float((x.mean(0) - mean).square().mean().sqrt()) < 1.3 * std / COUNT**0.5
    assert float(x.std(0).square().mean().sqrt()) == pytest.approx(std, rel=0.07)
    error, measured = (float((a - truth).square().mean().sqrt()) for a in (x.mean(0, keepdim=True), y))
    assert error < measured


def test_the_published_settings_are_close_to_the_posterior_mean(gaussian: Callable[[float, float], Prior]) -> None:
    """The published tau of 0.01 is less than the noise's 0.1: samples have little spread, about the right mean."""
    prior, operator = gaussian(0.2, 0.3), Inpainting(torch.ones(32, 32), SHAPE)
    truth = 0.2 + 0.3 * torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(4))
    y = NOISE(truth, batch_draw([1, 2, 3, 4]))
    x = solve(y, operator, prior, DAPS(), NoGuidance(), noise=NOISE, steps=50, seeds=[5, 6, 7, 8]).x
    assert float((x - (0.2 + 0.9 * (y - 0.2))).square().mean().sqrt()) < 0.05


def test_super_resolution_wants_a_smaller_tau(gaussian: Callable[[float, float], Prior]) -> None:
    """A A* is 1 / 16 there, so that Langevin steps of one length go 16 times less far in the measurement."""
    prior, operator = gaussian(0.0, 0.3), SuperResolution(SHAPE, 4)
    y = operator.forward(torch.full((2, *SHAPE), 0.6))

    def left(tau: float) -> float:
        solver = DAPS(ode_steps=2, tau=tau)
        x = solve(y, operator, prior, solver, NoGuidance(), noise=GaussianNoise(0.01), steps=40, seeds=[1, 2]).x
        return float((operator.forward(x) - 0.6).abs().mean())

    assert left(0.003) < 0.05 < 0.15 < left(0.01)


class Saturated(GaussianBlur):
    """A blur whose measurement saturates."""

    linear = False

    def _forward(self, x: Tensor) -> Tensor:
        return super()._forward(x).tanh()


def test_a_saturated_measurement(gaussian: Callable[[float, float], Prior]) -> None:
    """0.8 under N(0, 0.5^2), measured as tanh 0.8: the prior's mean would be 0."""
    operator = Saturated(SHAPE, 3, 0.01)
    y = operator.forward(torch.full((2, *SHAPE), 0.8))
    x = solve(
        y, operator, gaussian(0.0, 0.5), DAPS(), NoGuidance(), noise=GaussianNoise(0.01), steps=40, seeds=[1, 2]
    ).x
    assert abs(float(x.mean()) - 0.8) < 0.03


@pytest.mark.parametrize("ode_eps", ["guided", "unguided"])
def test_which_eps_follows_the_ode_and_which_meets_the_measurement(ode_eps: str, pixel: PixelPrior) -> None:
    operator, layers = GaussianBlur(SHAPE, 9, 1.5), [pixel.layers()[0].diffusers]
    y = operator.forward(torch.linspace(-0.9, 0.9, 32).expand(1, *SHAPE).contiguous())

    def restored(s: float, data_x0: str) -> Tensor:
        options = {"ode_steps": 2, "langevin_steps": 2, "ode_eps": ode_eps, "data_x0": data_x0}
        guidance = PerturbedAttentionGuidance(s, layers)
        return solve(y, operator, pixel, make_solver("daps", options), guidance, noise=NOISE, steps=4, seeds=[3]).x

    plain, unguided, guided = restored(0.0, "unguided"), restored(2.0, "unguided"), restored(2.0, "guided")
    assert torch.equal(plain, restored(0.0, "guided"))
    assert not torch.equal(guided, unguided)
    assert torch.equal(unguided, plain) == (ode_eps == "unguided")


def test_a_rate_too_large_fails_and_says_at_which_step(gaussian: Callable[[float, float], Prior]) -> None:
    operator = Inpainting(torch.ones(32, 32), SHAPE)
    y = torch.zeros(1, *SHAPE)
    wild = replace(LatentDAPS(), lr=1.0, langevin_steps=30)
    result = solve(y, operator, gaussian(0.0, 0.3), wild, NoGuidance(), noise=NOISE, steps=5, seeds=[1])
    assert result.failed == {0: 1}


def test_langevin_steps_of_a_linear_operator_do_not_diverge(gaussian: Callable[[float, float], Prior]) -> None:
    """A blur's ||A||^2 is above 1 at its borders, for kernels of one side clearly: lr ||A||^2 / tau^2 is above 2."""
    kernel = np.zeros((15, 15))
    kernel[7, 7:] = 1.0
    kernels = np.stack([kernel, kernel.T[:, ::-1], np.pad([[1.0]], 7)])
    operator, prior = Blur(kernels, SHAPE), gaussian(0.0, 0.3)
    y = operator.forward(0.3 * torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(4)))
    options = {"lr": 2e-4, "lr_ratio": 1.0, "ode_steps": 1, "langevin_steps": 20}

    def residuals(indices: list[int]) -> Tensor:
        problem, part = y[indices], operator.select(indices)
        solver = make_solver("daps", options)
        result = solve(problem, part, prior, solver, NoGuidance(), noise=GaussianNoise(0.05), steps=40, seeds=indices)
        return result.residuals[:, -1] / (0.05 * y[0].numel() ** 0.5)

    together = residuals([0, 1, 2])
    assert bool((together < 2.5).all())
    torch.testing.assert_close(together, torch.cat([residuals([b]) for b in range(3)]), rtol=1e-3, atol=0)


def test_the_gain_of_an_operator() -> None:
    """||A||^2 is that of the dense matrix, for each image."""
    operator = Blur(np.stack([np.pad([[2.0, 1.0, 0.0]], ((1, 1), (0, 0))), np.full((3, 3), 1.0)]), (1, 8, 8))
    problem = InverseProblem(torch.zeros(2, 1, 8, 8), operator, NOISE)
    columns = torch.eye(64).reshape(64, 1, 8, 8)
    dense = [operator.select([b]).forward(columns).reshape(64, 64) for b in range(2)]
    exact = torch.stack([torch.linalg.matrix_norm(matrix, ord=2).square() for matrix in dense])
    torch.testing.assert_close(gain(problem), exact, rtol=0.03, atol=0)
    assert gain(InverseProblem(torch.zeros(1, *SHAPE), Saturated(SHAPE, 3, 0.01))).tolist() == [0.0]


@pytest.mark.parametrize(
    "options",
    [
        {"ode_steps": 0},
        {"langevin_steps": 0},
        {"lr": 0.0},
        {"tau": 0.0},
        {"tau": 1e300},
        {"langevin_steps": 10**9},
        {"ode_eps": "both"},
    ],
)
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}.* is "):
        make_solver("daps", options)
    with pytest.raises(ValueError, match="sigma_min is 20"):
        DAPS(sigma_max=10.0, sigma_min=20.0)
