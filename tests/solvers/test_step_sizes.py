"""Step sizes: one rule for the chain and the picture; presets; what is given is meant as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise
from pag_inverse import (
    PSLD,
    SOLVERS,
    GuidedModel,
    Hyperparameters,
    InverseProblem,
    LatentPrior,
    NoGuidance,
    PerturbedAttentionGuidance,
    PixelPrior,
    load_task,
    make_solver,
    solve,
)
from pag_inverse.guidance import Guidance
from pag_inverse.priors import Prior
from pag_inverse.restoration import ChainResult
from pag_inverse.schedule import Schedule
from pag_inverse.settings import SPEEDS
from pag_inverse.solvers import State
from pag_inverse.solvers.data_term import every
from pag_inverse.solvers.step_sizes import lasting_moves, settle

SHAPE = (3, 32, 32)
LAYER = "mid_block.attentions.0"
STEPS = 12


@pytest.fixture
def priors(pixel: PixelPrior, latent: LatentPrior) -> dict[str, Prior]:
    return {"dps": pixel, "psld": latent}


def restored(prior: Any, name: str, guidance: Guidance) -> ChainResult:
    operator = GaussianBlur(SHAPE, 9, 1.5)
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8
    y = operator.forward(torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear"))
    solver = make_solver(name, {"eta": 0.5})
    return solve(y, operator, prior, solver, guidance, noise=GaussianNoise(0.05), steps=STEPS, seeds=[3])


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_the_whole_interval_of_pag_is_the_default_and_an_empty_one_is_no_guidance(
    name: str, priors: dict[str, Prior]
) -> None:
    prior = priors[name]
    default = restored(prior, name, PerturbedAttentionGuidance(1.0, [LAYER])).x
    whole = PerturbedAttentionGuidance(1.0, [LAYER], interval=(0.0, 1.0))
    assert torch.equal(restored(prior, name, whole).x, default)
    none = restored(prior, name, PerturbedAttentionGuidance(1.0, [LAYER], interval=(0.0, 0.0))).x
    # DPS visits t = 0, in its last step, which adds what PAG gives; the interval holds no timestep of PSLD.
    if name == "psld":
        assert torch.equal(none, restored(prior, name, NoGuidance()).x)
    assert not torch.equal(none, default)


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_pag_on_an_interval_has_no_perturbed_pass_outside(
    name: str, priors: dict[str, Prior], monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, calls = priors[name], []
    whole = type(prior).predict

    def counted(self: Prior, z: Tensor, t: int, *rest: Any, **named: Any) -> Any:
        calls.append((t, torch.is_grad_enabled()))
        return whole(self, z, t, *rest, **named)

    guidance = PerturbedAttentionGuidance(1.0, [LAYER], interval=(0.2, 0.6))
    restored(prior, name, guidance)  # what is made once
    monkeypatch.setattr(type(prior), "predict", counted)
    restored(prior, name, guidance)
    plain, perturbed = ([t for t, recorded in calls if recorded == graph] for graph in (True, False))
    assert perturbed == [t for t in plain if 200 <= t <= 600] and 0 < len(perturbed) < len(plain) == STEPS


def test_what_is_done_more_rarely_is_done_more_strongly() -> None:
    for k in (1, 2, 3, 6):
        assert sum(every(k, done) for done in range(STEPS)) == STEPS


class Unlike(LatentPrior):
    """Its encoder is 1 for every image, so that the gluing term alone tells how strong it is."""

    def encode(self, x: Tensor, draw: object = None) -> Tensor:
        return torch.ones(len(x), *self.state_shape(SHAPE))


@pytest.mark.parametrize("interval", [1, 3])
def test_the_gluing_term_keeps_its_sum(interval: int, latent: LatentPrior) -> None:
    """The moves along the gluing term alone, each from the same state, add up to as much as one at every step does."""
    model = GuidedModel(Unlike(latent.unet, latent.vae, latent.betas), NoGuidance())
    problem = InverseProblem(torch.zeros(1, *SHAPE), GaussianBlur(SHAPE, 9, 1.5), GaussianNoise(0.05))
    level, state, moves = np.full(STEPS, 0.5), State(torch.randn(1, 4, 16, 16)), []
    alike = Schedule(np.full(STEPS, 500), level, level)
    for k in (1, interval):
        glued, total = PSLD(0.0, gamma=0.5, encode_interval=k), 0.0
        for i in reversed(range(STEPS)):
            ends = [
                solver.step(state, i, problem, model, alike, torch.zeros).z for solver in (glued, PSLD(0.0, gamma=0.0))
            ]
            total += float((ends[0] - ends[1]).abs().sum())
        moves.append(total)
    assert moves[0] > 1 and moves[1] == pytest.approx(moves[0], rel=1e-4)


ROW = Hyperparameters(
    steps=60,
    tuned_side=256,
    options={"eta": 2.0, "gamma": 0.2, "spacing": "quadratic", "step_scaling": "sqrt_abar"},
)


def sizes(solver: Any) -> tuple[float, float]:
    return solver.eta, solver.gamma


def test_a_row_as_it_is_stays_and_half_the_steps_take_twice_the_size(latent: LatentPrior) -> None:
    own = settle("psld", ROW, latent, 256.0)
    assert sizes(own.solver) == (2.0, 0.2) and (own.steps, own.chain, own.side) == (60, 1.0, 1.0)
    assert sizes(settle("psld", ROW, latent, 256.0, steps=30).solver) == (2.0, 0.2)  # only where it is asked for
    half = settle("psld", ROW, latent, 256.0, steps=30, tuned_steps=60)
    assert sizes(half.solver) == pytest.approx((4.0, 0.4), rel=0.05) and half.chain == pytest.approx(2.0, rel=0.05)
    assert lasting_moves(half.solver, 30, latent) * half.solver.eta == pytest.approx(  # type: ignore[attr-defined]
        lasting_moves(own.solver, 60, latent) * 2.0
    )


def test_tuned_step_sizes_grow_with_the_side_and_given_ones_are_meant_as_they_are(latent: LatentPrior) -> None:
    assert sizes(settle("psld", ROW, latent, 128.0).solver) == (1.0, 0.1)
    assert sizes(settle("psld", ROW, latent, 128.0, given={"eta": 5.0}).solver) == (5.0, 0.1)
    assert sizes(settle("psld", ROW, latent, 128.0, given={"eta": 5.0, "gamma": 0.7}).solver) == (5.0, 0.7)
    assert sizes(settle("psld", replace(ROW, tuned_side=None), latent, 128.0).solver) == (2.0, 0.2)
    scaled = settle("psld", ROW, latent, 128.0, given={"eta": 5.0}, steps=30, tuned_steps=60)
    assert sizes(scaled.solver) == pytest.approx((10.0, 0.2), rel=0.05)


@pytest.mark.parametrize("solver", ["dps", "psld"])
@pytest.mark.parametrize("dataset", ["ffhq", "natural"])
def test_presets(dataset: str, solver: str, priors: dict[str, Prior]) -> None:
    row = load_task("gaussian_deblur", dataset, solver, image_size=256, pag=True).hyperparameters
    assert row is not None
    exact, fast, draft = (settle(solver, row, priors[solver], 256.0, speed=speed) for speed in SPEEDS)
    own: Any = make_solver(solver, row)
    assert exact.solver == own and exact.steps == row.steps
    quick: Any = fast.solver
    brief: Any = draft.solver
    assert fast.steps == min(100, row.steps) and draft.steps <= 50
    assert brief.spacing == ("quartic" if solver == "psld" else "quadratic") and brief.eta > quick.eta
    if dataset == "natural":
        assert quick == own  # its own steps are no more than 100, and limited
    else:
        assert quick.spacing == brief.spacing and quick.eta > own.eta
    if solver == "psld":
        assert quick.gamma / quick.eta == pytest.approx(own.gamma / own.eta)
    few = settle(solver, replace(row, steps=7), priors[solver], 256.0, speed="draft")
    assert few.steps == 7
    given: Any = settle(solver, row, priors[solver], 256.0, speed="fast", given={"eta": 3.0, "spacing": "even"}).solver
    assert (given.eta, given.spacing) == (3.0, "even")


def test_unknown_and_impossible_values(latent: LatentPrior) -> None:
    with pytest.raises(ValueError, match=", ".join(SPEEDS)):
        settle("psld", ROW, latent, speed="faster")
    for options in ({"encode_interval": 0}, {"step_limit": "x"}, {"eta": -1}, {"encode": "mean"}, {"ddim_eta": 1.5}):
        with pytest.raises(ValueError, match=f"^{next(iter(options))} is "):
            make_solver("psld", options)
    with pytest.raises(ValueError, match="variance is an unknown key; allowed: eta, spacing"):
        make_solver("psld", {"variance": "fixed_small"})
    with pytest.raises(ValueError, match=f"unknown solver 'ddrm'; there are {', '.join(SOLVERS)}"):
        make_solver("ddrm", {})
    for interval in ((0.5, 0.2), (-0.1, 1.0), (0.0, 1.5), (0.0,), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="interval"):
            PerturbedAttentionGuidance(1.0, [LAYER], interval=interval)  # type: ignore[arg-type]
