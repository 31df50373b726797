"""Photon counts: solvers get a problem whose noise is as strong everywhere, and sample what the counts leave open."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from operators import (
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Identity,
    Inpainting,
    Operator,
    PoissonNoise,
    RandomInpainting,
)
from pag_inverse import InverseProblem, PiGDM, Solver, make_solver, simulate
from pag_inverse.experiments.analytic_priors import MixturePrior, independent
from pag_inverse.experiments.calibration_cases import (
    SHAPE,
    SIZE,
    Case,
    draw_samples,
    figures,
    make_operator,
    make_prior,
    middle_missing,
)
from pag_inverse.guidance import GuidedModel, NoGuidance
from pag_inverse.restoration.loop import run_chain
from pag_inverse.schedule import BETAS
from pag_inverse.solvers import SOLVERS

PEAK, VARIANCE = 100.0, 0.1


def draw(seed: int) -> Callable[[tuple[int, ...]], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator)


def measured(operator: Operator, count: int = 1) -> tuple[Tensor, InverseProblem]:
    """Images of N(mean, VARIANCE), whose mean rises from dark to bright, and what was counted of them."""
    mean = torch.linspace(-0.7, 0.5, SIZE).view(SHAPE)
    x = (mean + VARIANCE**0.5 * draw(0)((count, *SHAPE))).clamp(-1, 1)
    return x, simulate(x, operator, PoissonNoise(PEAK), draw=draw(1))


def test_gaussian_noise_is_left_as_it_is() -> None:
    problem = simulate(torch.zeros(1, *SHAPE), Identity(SHAPE), GaussianNoise(0.1))
    assert problem.white is problem


@pytest.mark.parametrize(
    "operator", [Identity(SHAPE), GaussianBlur(SHAPE, 5, 1.0), Inpainting(middle_missing(), SHAPE)]
)
def test_the_residual_of_the_truth_is_the_noise(operator: Operator) -> None:
    """In every part of the image: dark pixels have less noise, and count for more."""
    x, problem = measured(operator, 50)
    assert float(problem.relative_residual(x).mean()) == pytest.approx(1, abs=0.03)
    white = problem.white
    left = (white.y - white.operator.forward(x)) * white.mask
    rows = left.square().sum(dim=(0, 1, 3)) / white.mask.sum(dim=(0, 1, 3))
    channels = left.square().sum(dim=(0, 2, 3)) / white.mask.sum(dim=(0, 2, 3))
    for part in (rows, channels):
        assert part.sqrt().tolist() == pytest.approx([problem.noise.sigma] * len(part), rel=0.1)
    assert torch.equal(white.mask, problem.mask) and isinstance(white.noise, GaussianNoise)
    few = problem.select([3, 1])
    torch.testing.assert_close(few.white.y, white.y[[3, 1]])
    torch.testing.assert_close(few.residual(x[[3, 1]]), problem.residual(x)[[3, 1]])


def test_black_pixels_do_not_count_without_bound() -> None:
    """Where most photons are, nothing changes; a black picture counts for 4 times as much as a grey one."""
    shape, level = (3, 8, 8), torch.linspace(-1, 1, 3 * 64).view(1, 3, 8, 8)
    problem = simulate(level, Identity(shape), PoissonNoise(10_000.0), draw=draw(1))
    weights = problem.white.operator.forward(torch.ones_like(level))
    expected = problem.noise.sigma / problem.noise.std(level)
    bright = level > -0.85
    torch.testing.assert_close(weights[bright], expected[bright], rtol=0.1, atol=0)
    assert float(weights.max()) == 4.0 == float(weights[level == -1].min())


def test_gluing_is_that_of_the_operator_itself() -> None:
    x, problem = measured(Grayscale(SHAPE))
    white, operator = problem.white, problem.operator
    y = white.operator.outer.glue(white.y)  # type: ignore[attr-defined]
    torch.testing.assert_close(white.operator.project(x, white.y), operator.project(x, y))


@pytest.mark.parametrize("operator", [Identity(SHAPE), Grayscale(SHAPE), Inpainting(middle_missing(), SHAPE)])
def test_a_linear_solve_weighs_every_entry_in_closed_form(operator: Operator) -> None:
    _, problem = measured(operator)
    white = problem.white
    u = white.operator.solve(white.y, 0.3, iterations=0)
    torch.testing.assert_close(white.operator.forward(white.operator.adjoint(u)) + 0.3 * u, white.y)


def exact(problem: InverseProblem, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each pixel given its count, for pixels of N(mean, VARIANCE): by summation over a grid."""
    grid = np.linspace(-1, 3, 4001)
    k = np.round(PEAK * (problem.y.double().numpy().ravel() + 1) / 2)
    log = scipy.stats.poisson.logpmf(k[:, None], PEAK * (grid + 1) / 2) - (grid - mean) ** 2 / (2 * VARIANCE)
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    centre = weight @ grid
    return centre, np.sqrt(weight @ grid**2 - centre**2)


def samples(problem: InverseProblem, solver: Solver, mean: float, count: int, steps: int) -> np.ndarray:
    mixture = independent(torch.full((SIZE,), mean, dtype=torch.float64), VARIANCE)
    model = GuidedModel(MixturePrior(mixture, SHAPE, BETAS["linear"]()), NoGuidance())
    many = problem.select([0] * count)
    return run_chain(many, model, solver, steps, range(count), draw=draw(2)).x.flatten(1).double().numpy()


@pytest.mark.parametrize("mean", [-0.4, 0.2])
def test_pigdm_samples_the_posterior_of_counts(mean: float) -> None:
    """Of denoising, against the exact one: nothing of the normal that stands for the counts is used here."""
    x = (mean + VARIANCE**0.5 * draw(0)((1, *SHAPE))).clamp(-1, 1)
    problem = simulate(x, Identity(SHAPE), PoissonNoise(PEAK), draw=draw(1))
    found = samples(problem, PiGDM(variance=VARIANCE, draw_x0=True), mean, 500, 10)
    centre, deviation = exact(problem, mean)
    apart = (found.mean(axis=0) - centre) / deviation
    assert abs(apart.mean()) < 0.04 and np.sqrt((apart**2).mean()) < 0.2
    ratio = found.std(axis=0) / deviation
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    dark, bright = (part.mean() for part in np.array_split(ratio[np.argsort(problem.y.numpy().ravel())], 2))
    assert dark == pytest.approx(bright, abs=0.1)


@pytest.mark.parametrize("operator", ["mask", "blur"])
def test_pigdm_is_as_calibrated_as_under_gaussian_noise(operator: str) -> None:
    chosen, mixture = make_operator(operator), make_prior("independent, v = 0.1")
    x = mixture.sample(1, torch.Generator().manual_seed(0)).view(1, *SHAPE).clamp(-1, 1).float()
    white = simulate(x, chosen, PoissonNoise(PEAK), draw=draw(1)).white
    columns = [white.operator.forward(e[None].double()).flatten() for e in torch.eye(SIZE).view(-1, *SHAPE)]
    matrix = torch.stack(columns, dim=1)
    case = Case(mixture, white.operator, matrix, white.noise.sigma, white.y.flatten().double())
    found = figures(draw_samples(PiGDM(variance=case.variance, draw_x0=True), case, 500, 10), case)
    assert found.bias is not None and found.bias < 0.03
    assert [found.measured, found.unmeasured] == pytest.approx([1, 1], abs=0.02)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_takes_counts_image_by_image(name: str, pixel, latent) -> None:
    """A batch equals its images alone."""
    shape = (3, 32, 32)
    x = torch.linspace(-0.8, 0.8, 2 * 3 * 32 * 32).view(2, *shape)
    holes = RandomInpainting(shape, [np.random.default_rng(seed) for seed in (0, 1)], (0.2, 0.5))
    problem = simulate(x, holes, PoissonNoise(20.0), draw=draw(1))
    solver = make_solver(name, {"renoise_prediction": True} if name in ("psld", "ldps") else {})
    model = GuidedModel(latent if solver.default_prior == "latent" else pixel, NoGuidance())
    together = run_chain(problem, model, solver, 2, [5, 6])
    assert bool(torch.isfinite(together.residuals).all())
    for b, seed in enumerate((5, 6)):
        alone = run_chain(problem.select([b]), model, solver, 2, [seed])
        torch.testing.assert_close(alone.x[0], together.x[b], rtol=0, atol=2e-3)
        torch.testing.assert_close(alone.residuals[0], together.residuals[b], rtol=1e-3, atol=1e-3)
