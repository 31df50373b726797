"""LatentDAPS: what a decoder does to the measurement, and what it shares with DAPS."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from operators import GaussianNoise, Inpainting
from pag_inverse import DAPS, LatentDAPS, NoGuidance, Prior, solve
from pag_inverse.runtime.streams import batch_draw

SHAPE = (3, 32, 32)
NOISE = GaussianNoise(0.1)
OPTIONS: dict[str, Any] = {"ode_steps": 2, "langevin_steps": 4, "sigma_max": 10.0}


def test_without_a_decoder_it_is_daps(gaussian: Callable[[float, float], Prior]) -> None:
    operator = Inpainting(torch.ones(32, 32), SHAPE)
    y = NOISE(torch.full((2, *SHAPE), 0.4), batch_draw([1, 2]))
    pixel, latent = (
        solve(y, operator, gaussian(0.2, 0.3), solver, NoGuidance(), noise=NOISE, steps=5, seeds=[3, 4])
        for solver in (DAPS(**OPTIONS), LatentDAPS(**OPTIONS))
    )
    torch.testing.assert_close(pixel.x, latent.x, atol=1e-4, rtol=1e-4)


def test_the_posterior_under_a_decoder_that_doubles(gaussian: Callable[[float, float], Prior]) -> None:
    """z ~ N(0.1, 0.3^2), y = 2 z + n of sigma 0.1: w = 0.36 / (0.36 + 0.01) pulls z to y / 2."""
    prior: Any = copy.copy(gaussian(0.1, 0.3))
    prior.decode = lambda z: 2 * z
    operator = Inpainting(torch.ones(32, 32), SHAPE)
    z = 0.1 + 0.3 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4))
    y = NOISE(2 * z, batch_draw([1]))
    solver = LatentDAPS(tau=None, lr=2.5e-4, lr_ratio=1.0, langevin_steps=60)
    ys = y.expand(16, -1, -1, -1).contiguous()
    result = solve(ys, operator, prior, solver, NoGuidance(), noise=NOISE, steps=30, seeds=list(range(16)))
    w = 0.36 / 0.37
    std = 0.3 * (1 - w) ** 0.5
    mean = 0.1 + w * (y[0] / 2 - 0.1)
    assert float((result.z.mean(0) - mean).square().mean().sqrt()) < 1.3 * std / 4
    assert float(result.z.std(0).square().mean().sqrt()) == pytest.approx(std, rel=0.1)
    torch.testing.assert_close(result.x, 2 * result.z)


def test_the_published_settings() -> None:
    solver = LatentDAPS()
    assert (solver.ode_steps, solver.sigma_max, solver.sigma_min, solver.tau) == (2, 10.0, 0.1, 0.01)
