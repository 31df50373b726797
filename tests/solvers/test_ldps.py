"""LDPS: PSLD without its gluing term, for any operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, NoNoise
from pag_inverse import (
    LDPS,
    PSLD,
    GuidedModel,
    InverseProblem,
    LatentPrior,
    NoGuidance,
    PerturbedAttentionGuidance,
    Prior,
    Solver,
    State,
    solve,
)

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


@pytest.mark.parametrize("kind", [LDPS, PSLD])
def test_cfgpp_adds_the_unguided_eps_again(kind: type[LDPS], latent: LatentPrior) -> None:
    draw = lambda shape: torch.zeros(shape)  # noqa: E731
    problem = InverseProblem(torch.zeros(1, *SHAPE), GaussianBlur(SHAPE, 9, 1.5), GaussianNoise(0.05))
    model = GuidedModel(latent, PerturbedAttentionGuidance(1.0, ["mid_block.attentions.0"]))
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    schedule = kind().schedule(latent, 10)
    guided, unguided = (
        kind(eta=0.3, renoise=which).step(State(z), 5, problem, model, schedule, draw).z
        for which in ("guided", "unguided")
    )
    eps = model(z, int(schedule.timesteps[5]))
    expected = (1 - float(schedule.abar_prev[5])) ** 0.5 * (eps.guided - eps.unguided)
    torch.testing.assert_close(guided - unguided, expected.detach(), rtol=1e-3, atol=1e-4)
