"""Pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from operators import GaussianBlur, GaussianNoise
from pag_inverse import NoGuidance, load_prior, restore, solve
from pag_inverse.problem import InverseProblem
from pag_inverse.restoration.canvas import Canvas
from pag_inverse.solvers import SOLVERS, make_solver


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_picture_of_odd_sides_comes_back_at_its_size(solver: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (65, 83, 3), dtype=np.uint8)
    seen = []
    output = restore(
        picture,
        task="gaussian_deblur",
        solver=solver,
        steps=2,
        callback=lambda done, steps, step: seen.append(step.x0 is None or step.x0.shape[2:]),
    )
    assert output.images.shape == picture.shape
    assert np.isfinite(output.residuals.numpy()).all()
    assert seen == [(65, 83)] * 2


@pytest.mark.parametrize("task", ["box_inpainting", "super_resolution", "motion_deblur"])
@pytest.mark.parametrize("size", [(75, 100), (65, 200)])
def test_every_task_at_any_size(task: str, size: tuple[int, int]) -> None:
    output = restore(np.full((*size, 3), 90, np.uint8), task=task, steps=1)
    assert output.images.shape == (*size, 3)


def test_the_margin_meets_no_measurement() -> None:
    """Where the margin is known, the estimate of the picture does not depend on it."""
    prior, operator = load_prior("pixel"), GaussianBlur((3, 65, 83), 9, 1.5)
    canvas = Canvas.of(InverseProblem(torch.zeros(1, 3, 65, 83), operator, GaussianNoise(0.05)), prior)
    assert canvas.problem.operator.in_shape == (3, 80, 96)
    x = torch.randn(1, 3, 80, 96, generator=torch.Generator().manual_seed(0))
    inside = canvas.picture(x)
    x[..., :7, :] += 1.0
    assert torch.equal(canvas.problem.residual(x), InverseProblem(canvas.problem.y, operator).residual(inside))


def test_a_size_that_the_prior_takes_has_no_canvas() -> None:
    problem = InverseProblem(torch.zeros(1, 3, 64, 96), GaussianBlur((3, 64, 96), 9, 1.5), GaussianNoise(0.05))
    canvas = Canvas.of(problem, load_prior("latent"))
    assert canvas.problem is problem
    assert canvas.crop is None


def test_small_pictures_get_a_canvas_that_networks_know() -> None:
    assert load_prior("pixel").canvas_shape((3, 33, 1000)) == (3, 64, 1008)
    assert load_prior("latent").canvas_shape((3, 33, 1000)) == (3, 64, 1024)


def test_the_callback_stops_with_the_picture() -> None:
    y, operator = torch.zeros(1, 3, 65, 83), GaussianBlur((3, 65, 83), 9, 1.5)
    result = solve(
        y,
        operator,
        load_prior("pixel"),
        make_solver("diffpir", {}),
        NoGuidance(),
        noise=GaussianNoise(0.05),
        steps=3,
        seeds=[0],
        callback=lambda done, steps, output: done == 1,
    )
    assert result.stopped
    assert result.x.shape == (1, 3, 65, 83)
