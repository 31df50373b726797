"""Networks in other number formats: what surrounds them stays float32, and results stay near float32's."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise
from pag_inverse import DPS, PSLD, LatentPrior, PerturbedAttentionGuidance, PixelPrior, load_prior, solve
from pag_inverse.priors.base import Prior
from pag_inverse.priors.networks import place, run_network
from pag_inverse.restoration import RestorationResult

HALVES = ("bfloat16", "float16")


def converted(prior: Prior, dtype: torch.dtype) -> Prior:
    other = copy.deepcopy(prior)
    for network in other.networks():
        place(network, "cpu", dtype)
    return other


def restore(prior: Prior, steps: int = 3) -> RestorationResult:
    latent = isinstance(prior, LatentPrior)
    side = 64 if latent else 32
    operator = GaussianBlur((3, side, side), 9, 1.5)
    y = operator.forward(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(2)) - 0.5)
    solver = PSLD(0.3, 0.03) if latent else DPS(0.5)
    guidance = PerturbedAttentionGuidance(1.0, [prior.layers()[0].diffusers])
    return solve(y, operator, prior, solver, guidance, noise=GaussianNoise(0.05), steps=steps, seeds=[0, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=HALVES)
@pytest.mark.parametrize("name", ["adm", "tiny_sd"])
def test_states_and_losses_stay_float32(name: str, dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    prior = request.getfixturevalue(name)
    expected, found = restore(prior), restore(converted(prior, dtype))
    assert found.x.dtype == found.z.dtype == found.residuals.dtype == torch.float32
    assert not torch.equal(found.x, expected.x)
    # eps of 1% error moves x0 by more where little of it is left in x_t: the residual is the steadier measure.
    torch.testing.assert_close(found.residuals[:, -1], expected.residuals[:, -1], rtol=0.05, atol=0)


@pytest.fixture(scope="module")
def latent() -> Prior:
    return load_prior("latent")


@pytest.mark.parametrize(
    ("name", "dtype", "error"),
    [("adm", torch.bfloat16, 0.03), ("adm", torch.float16, 0.005), ("latent", torch.bfloat16, 0.03)],
)
def test_predictions_and_gradients_are_near_those_of_float32(
    name: str, dtype: torch.dtype, error: float, request: pytest.FixtureRequest
) -> None:
    prior: PixelPrior | LatentPrior = request.getfixturevalue(name)
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, prior.unet.config.in_channels, 16, 16, generator=g)
    direction = 1e-8 * torch.randn(z.shape, generator=g)  # float16 tells nothing below 6e-8 from 0

    def outcome(prior: Prior) -> list[Tensor]:
        leaf = z.clone().requires_grad_(True)
        eps = prior.predict(leaf, 500).eps
        (grad,) = torch.autograd.grad((eps * direction).sum(), leaf)
        return [eps.detach(), grad, prior.predict_perturbed(leaf, 500, [prior.layers()[0].diffusers])]

    for ours, theirs in zip(outcome(converted(prior, dtype)), outcome(prior), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < error * theirs.norm()


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1.0, 1e30])
def test_a_float16_gradient_of_any_size_survives(size: float) -> None:
    """Of a linear network the gradient is known; each image has its own scale."""
    weight = torch.tensor([[0.5, -2.0], [3.0, 0.25]])
    x = torch.ones(2, 2, requires_grad=True)
    y = run_network(lambda h: h @ weight.to(h.dtype), x, torch.float16)
    direction = torch.tensor([[size, 2 * size], [1.0, 0.0]])
    (grad,) = torch.autograd.grad(y, x, direction)
    torch.testing.assert_close(grad, direction @ weight.T, rtol=2e-3, atol=0)


def test_a_precision_that_is_none() -> None:
    with pytest.raises(ValueError, match="float32, bfloat16, float16"):
        load_prior("pixel", precision="half")


def test_loaded_in_bfloat16(tmp_path: Path) -> None:
    prior = load_prior("latent", precision="bfloat16")
    assert all(p.dtype == torch.bfloat16 for network in prior.networks() for p in network.parameters())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        decoded = prior.decode(prior.encode(x))
        expected = load_prior("latent").decode(load_prior("latent").encode(x))
    assert decoded.dtype == torch.float32
    assert (decoded - expected).abs().mean() < 0.02
