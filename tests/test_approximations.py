"""Approximations by name: off they change nothing, on they leave out what they say and keep the sum of the moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise
from pag_inverse import DPS, PSLD, LatentPrior, PerturbedAttentionGuidance, PixelPrior, at_speed, load_task, solve
from pag_inverse.guidance.guidance import Guidance, NoGuidance
from pag_inverse.priors import Prior
from pag_inverse.solvers.step_sizes import lasting_moves, rescaled
from pag_inverse.restoration.loop import RestorationResult
from pag_inverse.schedule import Schedule
from pag_inverse.settings.tables import Hyperparameters, SolverOptions
from pag_inverse.solvers import Solver, make_solver
from pag_inverse.solvers.data_term import every, gradient_weight
from pag_inverse.settings.presets import SPEEDS, preset

SHAPE = (3, 32, 32)
LAYER = "mid_block.attentions.0"
STEPS = 12


@pytest.fixture
def priors(pixel: PixelPrior, latent: LatentPrior) -> dict[str, Prior]:
    return {"dps": pixel, "psld": latent}


class Counting:
    """A prior that keeps the timestep of every call, and whether autograd recorded it."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.calls: dict[str, list[tuple[int, bool]]] = {"predict": [], "predict_perturbed": [], "encode": []}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.prior, name)
        if name not in self.calls:
            return found

        def counted(*args: Any) -> Any:
            self.calls[name].append((args[1] if name != "encode" else -1, torch.is_grad_enabled()))
            return found(*args)

        return counted


def restore(prior: Any, solver: Solver, guidance: Guidance | None = None) -> RestorationResult:
    operator = GaussianBlur(SHAPE, 9, 1.5)
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8
    y = operator.forward(torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear"))
    guidance = guidance or PerturbedAttentionGuidance(1.0, [LAYER])
    return solve(y, operator, prior, solver, guidance, noise=GaussianNoise(0.05), steps=STEPS, seeds=[3])


def solver_of(name: str, **options: Any) -> Solver:
    return make_solver(name, Hyperparameters(0.5, 0.05 if name == "psld" else None, options=SolverOptions(**options)))


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_the_whole_interval_of_pag_is_the_default_and_an_empty_one_is_no_guidance(
    name: str, priors: dict[str, Prior]
) -> None:
    prior, solver = priors[name], solver_of(name)
    default = restore(prior, solver).x
    assert torch.equal(restore(prior, solver, PerturbedAttentionGuidance(1.0, [LAYER], interval=(0.0, 1.0))).x, default)
    none = restore(prior, solver, PerturbedAttentionGuidance(1.0, [LAYER], interval=(0.0, 0.0))).x
    # DPS visits t = 0, in its last step, which adds what PAG gives; the interval below holds no timestep of PSLD.
    if name == "psld":
        assert torch.equal(none, restore(prior, solver, NoGuidance()).x)
    assert not torch.equal(none, default)


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_pag_on_an_interval_has_no_perturbed_pass_outside(name: str, priors: dict[str, Prior]) -> None:
    counting = Counting(priors[name])
    restore(counting, solver_of(name), PerturbedAttentionGuidance(1.0, [LAYER], interval=(0.2, 0.6)))
    plain, perturbed = ([t for t, _ in counting.calls[n]] for n in ("predict", "predict_perturbed"))
    assert perturbed == [t for t in plain if 200 <= t <= 600] and 0 < len(perturbed) < len(plain) == STEPS


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_every_step_is_the_default_bit_for_bit(name: str, priors: dict[str, Prior]) -> None:
    prior = priors[name]
    default = restore(prior, DPS(0.5) if name == "dps" else PSLD(0.5, 0.05)).x
    for part in ("all", "early", "late"):
        assert torch.equal(restore(prior, solver_of(name, gradient_interval=1, gradient_part=part)).x, default)


@pytest.mark.parametrize("name", ["dps", "psld"])
@pytest.mark.parametrize(("part", "first", "second"), [("all", 2, 2), ("early", 2, 6), ("late", 6, 2)])
def test_steps_without_a_gradient_hold_no_graph(
    name: str, part: str, first: int, second: int, priors: dict[str, Prior]
) -> None:
    """Every third of twelve steps: two gradients in a half where that holds, six in the other one."""
    counting = Counting(priors[name])
    result = restore(counting, solver_of(name, gradient_interval=3, gradient_part=part))
    graphs = [recorded for _, recorded in counting.calls["predict"]]
    assert graphs[0] and (sum(graphs[:6]), sum(graphs[6:])) == (first, second)
    assert result.residuals.shape == (1, STEPS) and bool(torch.isfinite(result.residuals).all())


def test_what_is_done_more_rarely_is_done_more_strongly() -> None:
    for k in (1, 2, 3, 6):
        assert sum(every(k, done) for done in range(STEPS)) == STEPS
        for part in ("all", "early", "late"):
            options = SolverOptions(gradient_interval=k, gradient_part=part)
            assert sum(gradient_weight(options, i, STEPS) for i in range(STEPS)) == STEPS


class Unlike(LatentPrior):
    """Its encoder is 1 for every image, so that the gluing term alone tells how strong it is."""

    def encode(self, x: Tensor, draw: object = None) -> Tensor:
        return torch.ones(len(x), *self.state_shape(SHAPE))


@pytest.mark.parametrize(("encode", "gradient"), [(1, 1), (3, 1), (2, 2), (3, 2)])
def test_the_gluing_term_keeps_its_sum(encode: int, gradient: int, priors: dict[str, Prior]) -> None:
    """The moves along the gluing term alone, each from the same state, add up to as much as one at every step does."""
    base = priors["psld"]
    assert isinstance(base, LatentPrior)
    prior = Unlike(base.unet, base.vae, base.betas)
    operator, state, moves = GaussianBlur(SHAPE, 9, 1.5), torch.randn(1, 4, 16, 16), []
    level = np.full(STEPS, 0.5)
    alike = Schedule(np.full(STEPS, 500), level, level)
    draw = lambda shape: torch.zeros(shape)  # noqa: E731
    for interval, thinned in ((1, 1), (encode, gradient)):
        glued = PSLD(0.0, 0.5, SolverOptions(encode_interval=interval, gradient_interval=thinned))
        total = torch.zeros(())
        for i in reversed(range(STEPS)):
            arguments = (state, i, alike, torch.zeros(1, *SHAPE), GaussianNoise(0.05), operator, prior, NoGuidance())
            moved = glued.step(*arguments, draw).z - PSLD(0.0, 0.0).step(*arguments, draw).z
            total = total + moved.abs().sum()
        moves.append(float(total))
    assert moves[0] > 1 and moves[1] == pytest.approx(moves[0], rel=1e-4)


def test_a_row_on_its_own_chain_stays_and_half_the_steps_take_twice_the_size(priors: dict[str, Prior]) -> None:
    row = Hyperparameters(2.0, 0.2, steps=60, options=SolverOptions(spacing="quadratic", step_scaling="sqrt_abar"))
    assert rescaled(row, row, "psld", priors["psld"]) == row
    half = rescaled(replace(row, steps=30), row, "psld", priors["psld"])
    assert half.eta == pytest.approx(4.0, rel=0.05) and half.gamma == pytest.approx(0.4, rel=0.05)
    back = rescaled(replace(half, steps=60), half, "psld", priors["psld"])
    assert back.eta == pytest.approx(2.0) and back.gamma == pytest.approx(0.2)
    assert lasting_moves(half, "psld", priors["psld"]) * half.eta == pytest.approx(
        lasting_moves(row, "psld", priors["psld"]) * row.eta
    )


@pytest.mark.parametrize("solver", ["dps", "psld"])
@pytest.mark.parametrize("dataset", ["ffhq", "natural"])
def test_presets(dataset: str, solver: str, priors: dict[str, Prior]) -> None:
    row = load_task("gaussian_deblur", dataset, solver, image_size=256, pag=True).hyperparameters
    assert row is not None and at_speed(row, "exact", solver, priors[solver]) == row
    fast, draft = (at_speed(row, speed, solver, priors[solver]) for speed in ("fast", "draft"))
    assert fast.steps == min(100, row.steps) and draft.steps <= 50
    assert (fast.s, fast.layers) == (row.s, row.layers)
    assert draft.options.spacing == ("quartic" if solver == "psld" else "quadratic") and draft.eta > fast.eta
    if dataset == "natural":
        assert fast == row  # its own steps are no more than 100, and limited
    else:
        assert fast.options.spacing == draft.options.spacing and fast.eta > row.eta
    if solver == "psld":
        assert fast.gamma / fast.eta == pytest.approx(row.gamma / row.eta)
    assert preset(replace(row, steps=7), "draft", solver).steps == 7
    free = replace(row, options=replace(row.options, step_limit="none"))
    assert preset(free, "fast", solver).eta == pytest.approx(row.eta * (2.6 if solver == "psld" else 1))


def test_unknown_and_impossible_values() -> None:
    row = Hyperparameters(1.0)
    with pytest.raises(ValueError, match=", ".join(SPEEDS)):
        preset(row, "faster", "dps")
    for options in ({"gradient_interval": 0}, {"encode_interval": 0}, {"gradient_part": "middle"}, {"step_limit": "x"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            SolverOptions(**options)  # type: ignore[arg-type]
    for interval in ((0.5, 0.2), (-0.1, 1.0), (0.0, 1.5), (0.0,), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="interval"):
            SolverOptions(pag_interval=interval)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="interval"):
            PerturbedAttentionGuidance(1.0, [LAYER], interval=interval)  # type: ignore[arg-type]
