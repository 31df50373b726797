"""RED-diff: Adam's steps, a Gaussian prior, its starts, both readings of the guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, Inpainting
from pag_inverse import (
    GuidedModel,
    InverseProblem,
    NoGuidance,
    PerturbedAttentionGuidance,
    PixelPrior,
    Prior,
    REDdiff,
    make_solver,
    solve,
)
from pag_inverse.runtime.streams import batch_draw

SHAPE = (3, 32, 32)
NOISE = GaussianNoise(0.1)


@pytest.mark.parametrize("linear", [True, False])
def test_without_the_priors_term_it_is_torchs_adam(linear: bool, gaussian: Callable[[float, float], Prior]) -> None:
    class Blur(GaussianBlur):
        pass

    Blur.linear = linear
    operator = Blur(SHAPE, 9, 1.5)
    y = operator.forward(torch.linspace(-0.9, 0.9, 32).expand(1, *SHAPE).contiguous())
    solver = REDdiff(weight=0.0, start_from="normal", lr=0.05)
    x = solve(y, operator, gaussian(0.0, 0.3), solver, NoGuidance(), noise=NOISE, steps=7, seeds=[3]).x
    mu = batch_draw([3])((1, *SHAPE)).requires_grad_(True)
    adam = torch.optim.Adam([mu], lr=0.05, betas=(0.9, 0.99))
    with torch.enable_grad():
        for _ in range(7):
            adam.zero_grad()
            ((y - operator.forward(mu)).square().sum() / 2).backward()
            adam.step()
    torch.testing.assert_close(x, mu.detach(), atol=1e-3, rtol=0)


def test_what_is_measured_and_what_is_not_under_a_gaussian_prior(gaussian: Callable[[float, float], Prior]) -> None:
    """N(0.2, 0.3^2), the left half measured with noise 0.1: there the posterior mean, in the hole the prior's."""
    mask = torch.zeros(32, 32)
    mask[:, :16] = 1
    operator = Inpainting(mask, SHAPE)
    truth = 0.2 + 0.3 * torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(4))
    y = NOISE(operator.forward(truth), batch_draw([1, 2, 3, 4]))
    solver = REDdiff(lr_ratio=0.0)
    x = solve(y, operator, gaussian(0.2, 0.3), solver, NoGuidance(), noise=NOISE, steps=500, seeds=[5, 6, 7, 8]).x
    known, mean = x[..., :16], 0.2 + 0.9 * (y[..., :16] - 0.2)
    assert float((known - mean).square().mean().sqrt()) < 0.03
    assert float((known - truth[..., :16]).norm()) < float((y - truth)[..., :16].norm())
    assert float((x[..., 16:] - 0.2).square().mean().sqrt()) < 0.06


def test_what_it_starts_from(gaussian: Callable[[float, float], Prior]) -> None:
    operator = GaussianBlur(SHAPE, 9, 1.5)
    truth = torch.nn.functional.interpolate(batch_draw([1])((1, 3, 8, 8)) * 0.3, size=(32, 32), mode="bilinear")
    y, model = operator.forward(truth), GuidedModel(gaussian(0.0, 0.3), NoGuidance())

    def first(start: str, op: Any = operator) -> Tensor:
        solver = make_solver("reddiff", {"start_from": start})
        problem = InverseProblem(y, op, NOISE)
        return solver.start(problem, model, solver.schedule(model.prior, 4), batch_draw([7])).z

    normal = batch_draw([7])((1, *SHAPE))
    assert torch.equal(first("normal"), normal)
    torch.testing.assert_close(first("adjoint"), operator.adjoint(y))
    assert (first("pinv") - truth).norm() < 0.7 * (y - truth).norm()

    class Squared(GaussianBlur):
        linear = False

    assert torch.equal(first("pinv", Squared(SHAPE, 9, 1.5)), normal)


def test_the_guided_or_the_unguided_eps_in_the_priors_term(pixel: PixelPrior) -> None:
    operator, layers = GaussianBlur(SHAPE, 9, 1.5), [pixel.layers()[0].diffusers]
    y = operator.forward(torch.linspace(-0.9, 0.9, 32).expand(1, *SHAPE).contiguous())

    def restored(s: float, prior_eps: str) -> Tensor:
        solver, guidance = make_solver("reddiff", {"prior_eps": prior_eps}), PerturbedAttentionGuidance(s, layers)
        return solve(y, operator, pixel, solver, guidance, noise=NOISE, steps=5, seeds=[3]).x

    plain = restored(0.0, "guided")
    assert torch.equal(restored(2.0, "unguided"), plain)
    assert not torch.allclose(restored(2.0, "guided"), plain, atol=1e-3)


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"weight": -1.0}, {"start_from": "zero"}, {"lr_ratio": 2.0}])
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))} is "):
        make_solver("reddiff", options)
