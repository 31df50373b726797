"""A restoration under a perturbation that draws depends on the picture and its seed alone, also in tiles."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from operators import GaussianBlur, GaussianNoise
from pag_inverse import GuidedModel, InverseProblem, NoGuidance, PerturbedAttentionGuidance, PixelPrior, make_solver
from pag_inverse.restoration.loop import run_chain
from pag_inverse.restoration.tiling import TiledModel, Tiling
from pag_inverse.settings import Hyperparameters

SHAPE = (3, 32, 32)


def problem(prior: PixelPrior) -> InverseProblem:
    y = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return InverseProblem(y, GaussianBlur(SHAPE, 9, 1.5), GaussianNoise(0.05))


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("solver", ["dps", "diffpir"])
def test_a_batch_is_its_singles(solver: str, tiled: bool, pixel: PixelPrior) -> None:
    guidance = PerturbedAttentionGuidance(1.0, [pixel.layers()[0].diffusers], perturbation="random_mask")
    model = TiledModel(pixel, guidance, Tiling(16, 4)) if tiled else GuidedModel(pixel, guidance)
    whole, method = problem(pixel), make_solver(solver, {"eta": 0.5} if solver == "dps" else {})
    both = run_chain(whole, model, method, 3, [1, 2]).x
    last = replace(whole, y=whole.y[1:])
    alone = run_chain(last, model, method, 3, [2]).x[0]
    plain = run_chain(last, replace(model, guidance=NoGuidance()), method, 3, [2]).x[0]
    effect = (plain - both[1]).norm()
    assert effect > 3e-3 * plain.norm() and (alone - both[1]).norm() < 1e-2 * effect  # rounding is a hundredth of it


def test_the_masks_follow_the_seed_and_not_the_noise(pixel: PixelPrior) -> None:
    """With the sampler's noise replayed, another seed changes the masks alone."""
    guidance = PerturbedAttentionGuidance(1.0, [pixel.layers()[0].diffusers], perturbation="random_mask")

    def restored(seeds: list[int]) -> torch.Tensor:
        g = torch.Generator().manual_seed(0)
        model = GuidedModel(pixel, guidance)
        normal = partial(torch.randn, generator=g)
        return run_chain(problem(pixel), model, make_solver("dps", {"eta": 0.5}), 3, seeds, draw=normal).x

    first, second = restored([1, 2]), restored([1, 3])
    assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])


def test_a_row_has_its_perturbation(pixel: PixelPrior) -> None:
    row = Hyperparameters(s=2.0, layers=("middle_block.1",), perturbation="seg:sigma=2.0", adaptive_scale=0.001)
    guidance = PerturbedAttentionGuidance.of_row(row)
    assert guidance.perturbation.options() == {"sigma": 2.0} and guidance.scale(500) == 1.5
    assert row.further_guidance() == {"perturbation": "seg:sigma=2.0", "adaptive_scale": 0.001}
    assert Hyperparameters(s=2.0, layers=("a",)).further_guidance() == {}  # earlier runs keep their identity
