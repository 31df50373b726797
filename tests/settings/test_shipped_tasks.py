"""The tasks beside the paper's four: each has an operator, a noise and rows of the embedded priors that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import operators
from pag_inverse.problem import task_noise
from pag_inverse.settings import PAPER_TASKS, TASKS, load_task, recommended_solver
from pag_inverse.solvers import SOLVERS, make_solver, solver_class

EVERYDAY = [task for task in TASKS if task not in PAPER_TASKS]
NONLINEAR = {"jpeg", "overexposed", "phase_retrieval"}
every = pytest.mark.parametrize("task", EVERYDAY)


def built(task: str, side: int) -> operators.Operator:
    operator = load_task(task, None, "dps", image_size=side, pag=False).operator
    return operators.make_operator(operator.name, (3, side, side), operator.settings, [np.random.default_rng(0)])


def test_the_tasks_that_come_with_the_program() -> None:
    assert set(EVERYDAY) == NONLINEAR | {
        "colorize",
        "deblur",
        "deblur_and_upscale",
        "denoise",
        "inpaint",
        "poisson_denoise",
        "random_inpainting",
        "super_resolution_x2",
        "super_resolution_x3",
        "super_resolution_x4",
    }


@every
@pytest.mark.parametrize("side", [64, 256, 512])
def test_the_operator_takes_the_shipped_settings(task: str, side: int) -> None:
    operator = built(task, side)
    x = torch.linspace(-1, 1, 3 * side * side).view(1, 3, side, side)
    assert operator.forward(x).shape == (1, *operator.out_shape)
    assert operator.linear == (task not in NONLINEAR)


MEASURED = {  # what 256 pixels become
    "super_resolution_x2": (3, 128, 128),
    "super_resolution_x3": (3, 86, 86),
    "super_resolution_x4": (3, 64, 64),
    "deblur_and_upscale": (3, 64, 64),
    "colorize": (1, 256, 256),
    "phase_retrieval": (3, 512, 512),
}


@every
def test_the_shape_of_a_measurement_and_that_of_its_image(task: str) -> None:
    operator = built(task, 256)
    assert operator.out_shape == MEASURED.get(task, (3, 256, 256))
    config = load_task(task, None, "dps", image_size=256, pag=False).operator
    kind = operators.operator_class(config.name)
    shape = kind.image_shape(operator.out_shape, kind.read_settings(config.settings))
    assert shape == ((3, 258, 258) if task == "super_resolution_x3" else (3, 256, 256))


@every
@pytest.mark.parametrize("pag", [True, False])
def test_the_rows_are_of_solvers_that_can_solve_it(task: str, pag: bool) -> None:
    solvers = [name for name in SOLVERS if not solver_class(name).linear_only and name != "psld"]
    for name in solvers if task in NONLINEAR else SOLVERS:
        row = load_task(task, "natural", name, image_size=256, pag=pag).hyperparameters
        assert row is not None and bool(row.layers) == (row.s > 0) == pag
        solver = make_solver(name, row)
        assert bool(solver.STEP_SIZES) == (row.tuned_side == 256)
    with pytest.raises(ValueError, match=r"unknown dataset 'ffhq'; the rows of .* are for natural"):
        load_task(task, "ffhq", "dps", image_size=256, pag=pag)
    for kind in ("pixel", "latent"):
        name = recommended_solver(task, kind, "natural", pag=pag)  # type: ignore[arg-type]
        assert name is not None and solver_class(name).default_prior == kind
        assert solver_class(name).takes(built(task, 256))


@every
def test_the_noise(task: str) -> None:
    noise = task_noise(load_task(task, None, "dps", image_size=256, pag=False))
    kinds = {"jpeg": operators.NoNoise, "poisson_denoise": operators.PoissonNoise}
    assert type(noise) is kinds.get(task, operators.GaussianNoise) and 0 <= noise.sigma < 0.3


def test_the_readme_lists_every_task() -> None:
    readme = Path(__file__).parents[2] / "configs" / "README.md"
    if not readme.is_file():
        pytest.skip("the README is not beside the installed package")
    text = readme.read_text(encoding="utf-8").replace("`_x", "`super_resolution_x")
    assert [task for task in TASKS if f"`{task}`" not in text] == []
