"""The loop: batches, seeds, guidance that is off, images that fail, and a posterior known in closed form."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import BoxInpainting, GaussianBlur, GaussianNoise, Inpainting, MotionBlur, Noise, NoNoise, Operator
from pag_inverse import (
    DPS,
    PSLD,
    SOLVERS,
    GuidedModel,
    InverseProblem,
    LatentPrior,
    NoGuidance,
    PerturbedAttentionGuidance,
    PixelPrior,
    Solver,
    make_solver,
    solve,
)
from pag_inverse.priors.base import Prior
from pag_inverse.runtime.streams import batch_draw, operator_rng, stream_seed
from pag_inverse.solvers import State, StepOutput
from pag_inverse.solvers.step_sizes import lasting_moves

SHAPE = (3, 32, 32)
NOISE = GaussianNoise(0.05)
# Options that make a step short and its move visible, for solvers that need some.
QUICK: dict[str, dict[str, Any]] = {
    "dps": {"eta": 0.5},
    "psld": {"eta": 0.3, "gamma": 0.03},
    "ldps": {"eta": 0.3},
    "daps": {"ode_steps": 2, "langevin_steps": 3},
    "latent_daps": {"langevin_steps": 3},
}
MakePrior = Callable[[float, float], Prior]  # of a mean and a standard deviation


def solver_of(name: str, eta: float, **options: Any) -> Solver:
    """DPS, or PSLD with a gamma of a tenth of eta; options that only the other one has are left out."""
    if name == "dps":
        return DPS(eta, **{k: v for k, v in options.items() if k not in ("renoise_prediction", "encode", "ddim_eta")})
    return PSLD(eta, **{"gamma": eta / 10, **options})


def one_step(
    solver: Solver,
    z: Tensor,
    i: int,
    y: Tensor,
    operator: Operator,
    prior: Prior,
    draw: Any,
    steps: int = 10,
    noise: Noise = NOISE,
) -> StepOutput:
    """Step i of a chain, without guidance."""
    problem, model = InverseProblem(y, operator, noise), GuidedModel(prior, NoGuidance())
    return solver.step(State(z), i, problem, model, solver.schedule(prior, steps), draw)


def images(count: int, side: int = 32) -> Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def restore(
    prior: Prior, solver: Solver, operator: Operator, y: Tensor, seeds: list[int], s: float = 1.0, steps: int = 6
) -> Tensor:
    layers = [layer.diffusers for layer in prior.layers()][:1]
    guidance = PerturbedAttentionGuidance(s, layers)
    plain = batch_draw(seeds)
    draw = lambda shape: plain(shape).to(y)  # noqa: E731
    return solve(y, operator, prior, solver, guidance, noise=NOISE, steps=steps, seeds=seeds, draw=draw).x


def quick(name: str) -> Solver:
    return make_solver(name, QUICK.get(name, {}))


# Those of `test_posterior_solvers` clamp nothing: a random network's states grow, and roundings with them.
@pytest.mark.parametrize("name", ["dps", "psld", "ldps", "daps", "latent_daps", "reddiff"])
@pytest.mark.parametrize("task", ["box", "motion"])
def test_a_batch_of_four_equals_four_of_one(name: str, task: str, adm: PixelPrior, tiny_sd: LatentPrior) -> None:
    # In float64: in float32 other batches take other kernels, and a rounding can push an x0 across the clamp.
    solver = quick(name)
    prior, side, steps = (adm, 64, 2) if solver.default_prior == "pixel" else (tiny_sd, 128, 1)
    prior = copy.deepcopy(prior)
    for network in prior.networks():
        network.double()
    shape = (3, side, side)
    operator: Operator
    if task == "box":
        operator = BoxInpainting(shape, [(3 + i, 4, 10, 12) for i in range(4)])
    else:
        operator = MotionBlur(shape, [operator_rng(0, str(i)) for i in range(4)], kernel_size=9)
    operator = operator.to("cpu", torch.float64)
    y = operator.forward(images(4, side).double())
    together = restore(prior, solver, operator, y, [1, 2, 3, 4], steps=steps)
    for i in (0, 3):
        alone = restore(prior, solver, operator.select([i]), y[i : i + 1], [i + 1], steps=steps)
        assert (together[i] - alone[0]).abs().max() < 1e-8
    assert (together[0] - together[1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", SOLVERS)
def test_s_of_zero_is_no_guidance_bit_for_bit(name: str, pixel: PixelPrior, latent: LatentPrior) -> None:
    solver = quick(name)
    prior = pixel if solver.default_prior == "pixel" else latent
    operator = GaussianBlur(SHAPE, 9, 1.5)
    y = operator.forward(images(1))
    plain = solve(y, operator, prior, solver, NoGuidance(), noise=NOISE, steps=6, seeds=[7])
    assert torch.equal(restore(prior, solver, operator, y, [7], s=0.0), plain.x)
    guided = restore(prior, solver, operator, y, [7], s=1.0)
    assert not torch.equal(guided, plain.x)
    assert torch.equal(restore(prior, solver, operator, y, [7], s=1.0), guided)  # its seed decides
    assert plain.residuals.shape == (1, 6) and not plain.failed


class Poisoned(DPS):
    """DPS whose second image leaves the finite numbers at the third step."""

    def step(self, state: State, i: int, *rest):  # type: ignore[no-untyped-def,override]
        output = super().step(state, i, *rest)
        if i == 3:
            output.z[1] = float("nan")
        return output


def test_an_image_that_fails_leaves_the_others_alone(pixel: PixelPrior) -> None:
    operator = GaussianBlur(SHAPE, 9, 1.5)
    y = operator.forward(images(3))
    guidance = NoGuidance()
    healthy = solve(y, operator, pixel, DPS(0.5), guidance, noise=NOISE, steps=6, seeds=[1, 2, 3])
    broken = solve(y, operator, pixel, Poisoned(0.5), guidance, noise=NOISE, steps=6, seeds=[1, 2, 3])
    assert broken.failed == {1: 3}
    assert (broken.x[[0, 2]] - healthy.x[[0, 2]]).abs().max() < 1e-4


def test_without_data_the_samples_are_the_priors(gaussian: MakePrior) -> None:
    """eta 0: DDPM with the exact eps draws from N(0.2, 0.1^2)."""
    prior = gaussian(0.2, 0.1)
    operator = Inpainting(torch.ones(32, 32), SHAPE)
    y = torch.zeros(8, *SHAPE)
    result = solve(y, operator, prior, DPS(0.0), NoGuidance(), noise=NOISE, steps=1000, seeds=list(range(8)))
    assert abs(float(result.x.mean()) - 0.2) < 0.005
    assert abs(float(result.x.std()) - 0.1) < 0.01


@pytest.mark.parametrize("solver", [DPS(5.0), PSLD(5.0, gamma=0.5)], ids=["dps", "psld"])
def test_what_was_measured_pulls_and_what_was_not_follows_the_prior(solver: Solver, gaussian: MakePrior) -> None:
    """Half of an image is measured at 0.5 without noise: there the posterior is 0.5, elsewhere still N(0.2, ...)."""
    prior = gaussian(0.2, 0.1)
    mask = torch.zeros(32, 32)
    mask[:, :16] = 1
    operator = Inpainting(mask, SHAPE)
    y = operator.forward(torch.full((4, *SHAPE), 0.5))
    result = solve(y, operator, prior, solver, NoGuidance(), noise=NoNoise(), steps=250, seeds=[0, 1, 2, 3])
    known, hole = result.x[..., :16], result.x[..., 16:]
    assert abs(float(known.mean()) - 0.5) < 0.05
    assert abs(float(hole.mean()) - 0.2) < 0.03


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_few_steps_move_as_far_as_many_by_the_rule(name: str, gaussian: MakePrior) -> None:
    """Known at 0.9 under the prior N(0, 0.1): a small eta moves the mean by eta times the rule's sum over sqrt(n)."""
    prior = gaussian(0.0, 0.1**0.5)
    operator = Inpainting(torch.ones(32, 32), SHAPE)
    y = torch.full((4, *SHAPE), 0.9)
    many: Any = DPS(0.2) if name == "dps" else PSLD(0.2, gamma=0.0, ddim_eta=1.0)

    def mean(solver: Solver, steps: int) -> float:
        result = solve(y, operator, prior, solver, NoGuidance(), noise=NoNoise(), steps=steps, seeds=[0, 1, 2, 3])
        return float(result.x.mean())

    few = replace(many, spacing="quadratic", step_scaling="sqrt_abar")
    cosine = 0.9 / (0.9**2 + 0.1) ** 0.5  # of the residual with the way to go, x0 being noisy itself
    expected = many.eta * lasting_moves(many, 500, prior) * cosine / operator.in_shape[1] / 3**0.5
    assert mean(many, 500) == pytest.approx(expected, rel=0.15)
    factor = lasting_moves(many, 500, prior) / lasting_moves(few, 50, prior)
    assert mean(replace(few, eta=few.eta * factor), 50) == pytest.approx(mean(many, 500), rel=0.1)
    assert mean(few, 50) < 0.5 * mean(many, 500)


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_a_limited_step_ends_at_the_noise_where_a_long_one_overshoots(name: str, gaussian: MakePrior) -> None:
    """Ten steps of fifty times the step size: limited, ||y - x|| ends near sigma sqrt(m), and small steps stay."""
    prior, operator = gaussian(0.2, 0.3), Inpainting(torch.ones(32, 32), SHAPE)
    truth = 0.2 + 0.3 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(4)).clamp(-2, 2)
    y = NOISE(truth, batch_draw([1, 2]))

    def ends(eta: float, limit: str) -> Tensor:
        options = {"renoise_prediction": False, "step_scaling": "sqrt_abar", "step_limit": limit, "gamma": 0.0}
        if name == "dps":
            options.pop("gamma")
        solver = solver_of(name, eta, **options)
        return solve(y, operator, prior, solver, NoGuidance(), noise=NOISE, steps=10, seeds=[0, 1]).x

    free, limited = (float((y - ends(200.0, limit)).norm() / (0.05 * y.numel() ** 0.5)) for limit in ("none", "noise"))
    assert free > 3 and 0.5 < limited < 1.3
    torch.testing.assert_close(ends(0.01, "none"), ends(0.01, "noise"), atol=1e-5, rtol=0)


def test_the_middle_variance_lies_between_as_a_learned_one_would(pixel: PixelPrior) -> None:
    """What the noise of one DPS step is multiplied by: the geometric mean of the two bounds."""
    operator, z = GaussianBlur(SHAPE, 9, 1.5), images(1)

    def factor(variance: str) -> float:
        solver = DPS(0.0, variance=variance)  # type: ignore[arg-type]
        one = lambda value: one_step(  # noqa: E731
            solver, z, 1, z, operator, pixel, lambda shape: torch.full(shape, value)
        )
        return float((one(1.0).z - one(0.0).z).mean())

    small, middle, large = (factor(f"fixed_{name}") for name in ("small", "middle", "large"))
    assert 0 < small < 0.95 * large and middle == pytest.approx((small * large) ** 0.5, rel=1e-4)


def test_streams_are_separate_and_the_measurement_does_not_depend_on_the_sample() -> None:
    seeds = {stream_seed(s, i, p) for s in (0, 1) for i in ("a", "b") for p in ("operator", "measurement", "sampling")}
    assert len(seeds) == 12
    assert stream_seed(0, "a", "measurement", 3) == stream_seed(0, "a", "measurement", 0)
    assert stream_seed(0, "a", "sampling", 3) != stream_seed(0, "a", "sampling", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": 0}, "from 1 to 1000"), ({"steps": 1001}, "from 1 to 1000"), ({"seeds": [1, 2]}, "as many seeds")],
)
def test_arguments_that_do_not_fit(change: dict[str, object], message: str, pixel: PixelPrior) -> None:
    operator = GaussianBlur(SHAPE, 9, 1.5)
    settings = {"noise": NOISE, "steps": 2, "seeds": [0]} | change
    with pytest.raises(ValueError, match=message):
        solve(images(1), operator, pixel, DPS(1.0), NoGuidance(), **settings)  # type: ignore[arg-type]


def test_a_size_that_does_not_divide_is_restored_on_a_canvas(pixel: PixelPrior) -> None:
    operator = GaussianBlur((3, 33, 32), 9, 1.5)
    result = solve(torch.zeros(1, 3, 33, 32), operator, pixel, DPS(1.0), NoGuidance(), noise=NOISE, steps=2, seeds=[0])
    assert result.x.shape == (1, 3, 33, 32)
    assert result.z.shape == (1, 3, 64, 64)


def test_a_picture_of_one_channel_is_not_taken(pixel: PixelPrior) -> None:
    operator = GaussianBlur((1, 32, 32), 9, 1.5)
    with pytest.raises(ValueError, match="32 x 32 with 1 channels; it takes 3 channels"):
        solve(torch.zeros(1, 1, 32, 32), operator, pixel, DPS(1.0), NoGuidance(), noise=NOISE, steps=2, seeds=[0])


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_the_data_terms_rest_below_the_noise_floor(name: str, pixel: PixelPrior, latent: LatentPrior) -> None:
    """Of two images, the one whose residual is below the floor moves as without data, the other as published."""
    prior = pixel if name == "dps" else latent
    make = functools.partial(solver_of, name, renoise_prediction=False, encode="mode")
    operator = GaussianBlur(SHAPE, 9, 1.5)
    z = batch_draw([3, 4])((2, *prior.state_shape(SHAPE)))

    def step(solver: Solver) -> StepOutput:
        return one_step(solver, z, 6, y, operator, prior, batch_draw([5, 6]))

    y = operator.forward(images(2))
    unit = NOISE.sigma * y[0].numel() ** 0.5
    smaller, larger = (published := step(make(0.5))).residual.argsort().tolist()
    floor = float(published.residual.mean() / unit)
    rested = step(make(0.5, noise_floor=floor))
    assert torch.equal(rested.z[larger], published.z[larger])
    torch.testing.assert_close(rested.z[smaller], step(make(0.0)).z[smaller], atol=1e-6, rtol=0)
    assert not torch.allclose(rested.z[smaller], published.z[smaller], atol=1e-4)
    assert torch.equal(step(make(0.5, noise_floor=1e-9)).z, published.z)


class Squared(GaussianBlur):
    """A non-linear operator."""

    linear = False


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if solver.linear_only])
def test_what_needs_a_linear_operator_says_so(name: str, pixel: PixelPrior) -> None:
    operator = Squared(SHAPE, 9, 1.5)
    with pytest.raises(ValueError, match="needs a linear operator; Squared is not"):
        solve(images(1), operator, pixel, quick(name), NoGuidance(), noise=NOISE, steps=2, seeds=[0])


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if solver.pixel_only])
def test_what_needs_a_pixel_prior_says_so(name: str, latent: LatentPrior) -> None:
    operator = GaussianBlur(SHAPE, 9, 1.5)
    with pytest.raises(ValueError, match="needs a pixel prior"):
        solve(images(1), operator, latent, quick(name), NoGuidance(), noise=NOISE, steps=2, seeds=[0])


def test_psld_refuses_a_nonlinear_operator_unless_gamma_is_zero(latent: LatentPrior) -> None:
    operator = Squared(SHAPE, 9, 1.5)
    y = operator.forward(images(1))
    with pytest.raises(ValueError, match="gamma to 0"):
        solve(y, operator, latent, PSLD(1.0, gamma=0.1), NoGuidance(), noise=NOISE, steps=2, seeds=[0])
    solve(y, operator, latent, PSLD(1.0, gamma=0.0), NoGuidance(), noise=NOISE, steps=2, seeds=[0])


@pytest.mark.parametrize("name", ["dps", "psld"])
def test_step_sizes_that_follow_abar(name: str, pixel: PixelPrior, latent: LatentPrior) -> None:
    """Of one step from the same state, the part that the data moves is sqrt(abar) times the constant one."""
    prior = pixel if name == "dps" else latent
    make = functools.partial(solver_of, name, renoise_prediction=False, encode="mode")
    operator = GaussianBlur(SHAPE, 9, 1.5)
    y, z = operator.forward(images(1)), batch_draw([3])((1, *prior.state_shape(SHAPE)))
    ends = []
    for eta, scaling in ((0.0, "constant"), (0.5, "constant"), (0.5, "sqrt_abar")):
        solver = make(eta, step_scaling=scaling)
        schedule = solver.schedule(prior, 10)
        ends.append(one_step(solver, z, 6, y, operator, prior, batch_draw([5])).z)
    constant, scaled = ends[1] - ends[0], ends[2] - ends[0]
    assert constant.abs().max() > 1e-3
    torch.testing.assert_close(scaled, float(schedule.abar[6]) ** 0.5 * constant, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("limit", ["none", "noise"])
def test_the_gluing_term_moves_without_the_data_term(limit: str, latent: LatentPrior) -> None:
    """eta = 0 and gamma = 5: the sample moves, with a limit on the step and without one."""
    operator, z = GaussianBlur(SHAPE, 9, 1.5), batch_draw([3])((1, *latent.state_shape(SHAPE)))
    y = operator.forward(images(1))
    ends = [
        one_step(PSLD(0.0, gamma=gamma, step_limit=limit), z, 6, y, operator, latent, batch_draw([5])).z  # type: ignore[arg-type]
        for gamma in (0.0, 5.0)
    ]
    assert (ends[1] - ends[0]).abs().max() > 1e-3


def test_a_picture_that_decodes_to_nan_has_failed(latent: LatentPrior) -> None:
    """The state stays finite, the decoded picture does not."""
    prior = copy.copy(latent)
    whole = prior.decode
    prior.decode = lambda z: whole(z) * (torch.tensor([1.0, float("nan")])[:, None, None, None] if len(z) == 2 else 1)  # type: ignore[method-assign]
    operator = GaussianBlur(SHAPE, 9, 1.5)
    y = operator.forward(images(2))
    result = solve(y, operator, prior, PSLD(0.0, gamma=0.0), NoGuidance(), noise=NOISE, steps=3, seeds=[1, 2])
    assert list(result.failed) == [1] and bool(torch.isfinite(result.x[0]).all())


def test_a_batch_in_which_all_have_failed_stops(pixel: PixelPrior) -> None:
    operator, calls = GaussianBlur(SHAPE, 9, 1.5), []
    y = operator.forward(images(1))

    class AtOnce(DPS):
        def step(self, state: State, i: int, *rest):  # type: ignore[no-untyped-def,override]
            calls.append(i)
            output = super().step(state, i, *rest)
            output.z[:] = float("inf")
            return output

    result = solve(y, operator, pixel, AtOnce(0.5), NoGuidance(), noise=NOISE, steps=6, seeds=[1])
    assert result.failed == {0: 1} and calls == [5]


def test_a_callback_stops_the_chain(pixel: PixelPrior) -> None:
    operator, seen = GaussianBlur(SHAPE, 9, 1.5), []
    y = operator.forward(images(1))

    def stop(done: int, steps: int, output: StepOutput) -> bool:
        seen.append((done, steps, output.x0))
        return done == 3

    result = solve(y, operator, pixel, DPS(0.5), NoGuidance(), noise=NOISE, steps=6, seeds=[1], callback=stop)
    assert [done for done, _, _ in seen] == [1, 2, 3] and result.stopped
    assert result.residuals.shape == (1, 3) and torch.equal(result.x, seen[-1][2])
