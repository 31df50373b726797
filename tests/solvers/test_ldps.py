"""LDPS: PSLD without its gluing term, for any operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, NoNoise
from pag_inverse import LDPS, PSLD, LatentPrior, NoGuidance, PerturbedAttentionGuidance, Prior, Solver, solve

SHAPE = (3, 32, 32)


class Saturated(GaussianBlur):
    """A blur whose measurement saturates."""

    linear = False

    def _forward(self, x: Tensor) -> Tensor:
        return super()._forward(x).tanh()


def picture() -> Tensor:
    return torch.linspace(-0.9, 0.9, 32).expand(1, *SHAPE).contiguous()


def restored(solver: Solver, prior: LatentPrior, steps: int = 6) -> Tensor:
    operator = Saturated(SHAPE, 9, 1.5)
    y, guidance = operator.forward(picture()), PerturbedAttentionGuidance(1.0, ["mid_block.attentions.0"])
    result = solve(y, operator, prior, solver, guidance, noise=GaussianNoise(0.05), steps=steps, seeds=[4])
    assert not result.failed
    return result.x


@pytest.mark.parametrize("renoise", [True, False])
def test_it_is_psld_without_gluing_on_a_nonlinear_operator(renoise: bool, latent: LatentPrior) -> None:
    options = {"renoise_prediction": renoise, "ddim_eta": 0.5}
    alone, glued = LDPS(0.5, **options), PSLD(0.5, gamma=0.0, **options)  # type: ignore[arg-type]
    assert torch.equal(restored(alone, latent), restored(glued, latent))


def test_the_posterior_of_a_saturated_measurement(gaussian: Callable[[float, float], Prior]) -> None:
    """0.8 under N(0, 0.5^2), measured without noise as tanh 0.8: the prior's mean would be 0."""
    operator, prior = Saturated(SHAPE, 3, 0.01), gaussian(0.0, 0.5)
    y = operator.forward(torch.full((2, *SHAPE), 0.8))
    solver = LDPS(20.0, spacing="quadratic", step_scaling="sqrt_abar", step_limit="noise", renoise_prediction=False)
    result = solve(y, operator, prior, solver, NoGuidance(), noise=NoNoise(), steps=60, seeds=[1, 2])
    assert abs(float(result.x.mean()) - 0.8) < 0.02
