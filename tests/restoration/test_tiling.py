"""Tiles of the prior: weights, the same as the whole where nothing reaches beyond a tile, and the gradient."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pag_inverse import LatentPrior, NoGuidance, PerturbedAttentionGuidance, PixelPrior, restore
from pag_inverse.guidance import GuidedModel
from pag_inverse.restoration.tiling import TiledModel, Tiling, blend, choose_tiling


@pytest.mark.parametrize("sides", [(64, 64), (50, 131), (16, 200), (257, 33)])
def test_tiles_cover_every_pixel_and_weights_are_smooth(sides: tuple[int, int]) -> None:
    tiling = Tiling(32, 8)
    total = torch.zeros(sides)
    for rows, columns in tiling.tiles(*sides):
        assert rows.stop - rows.start == min(32, sides[0])
        total[rows, columns] += tiling.window((rows, columns), *sides)
    assert float(total.min()) > 0.5
    x = torch.randn(1, 2, *sides, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blend(lambda tile: (3 * tile,), x, tiling)[0], 3 * x)


def test_a_result_may_be_larger_than_its_tile() -> None:
    x = torch.randn(1, 2, 20, 26, generator=torch.Generator().manual_seed(0))
    up = torch.nn.Upsample(scale_factor=4, mode="nearest")
    torch.testing.assert_close(blend(lambda tile: (up(tile),), x, Tiling(8, 4), 4.0)[0], up(x))


def test_eps_and_its_gradient_of_a_prior_without_reach(gaussian: Callable[[float, float], Any]) -> None:
    prior = gaussian(0.1, 0.5)
    whole = GuidedModel(prior, NoGuidance())
    tiled = TiledModel(prior, NoGuidance(), Tiling(16, 4))
    z = torch.randn(2, 3, 40, 29, generator=torch.Generator().manual_seed(0))
    grads = []
    for model in (whole, tiled):
        x = z.clone().requires_grad_(True)
        with torch.enable_grad():
            eps = model(x, 500)
            (grad,) = torch.autograd.grad(eps.unguided.square().sum(), x)
        grads.append((eps.unguided.detach(), eps.guided, grad))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_of_a_network_is_that_of_its_blended_output(pixel: PixelPrior) -> None:
    """Checked against finite differences along a direction."""
    model = TiledModel(pixel, PerturbedAttentionGuidance(1.0, ["mid_block.attentions.0"]), Tiling(16, 4))
    z = torch.randn(1, 3, 40, 24, generator=torch.Generator().manual_seed(0))
    direction = torch.randn(1, 3, 40, 24, generator=torch.Generator().manual_seed(1))
    x = z.clone().requires_grad_(True)
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(model(x, 500).unguided.square().sum(), x)
    step = 1e-2
    values = [float(model(z + k * step * direction, 500).unguided.double().square().sum()) for k in (1, -1)]
    assert float((grad * direction).sum()) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2)


def test_decoding_in_tiles_has_a_gradient(latent: LatentPrior) -> None:
    model = TiledModel(latent, NoGuidance(), Tiling(16, 8))
    z = torch.randn(1, 4, 40, 24, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    with torch.enable_grad():
        x = model.decode(z)
        (grad,) = torch.autograd.grad(x.square().sum(), z)
    assert x.shape == (1, 3, 80, 48)
    assert bool((grad != 0).any())
    assert model.encode(x.detach()).shape == z.shape


@pytest.mark.parametrize(
    ("shape", "tile", "expected"),
    [((3, 512, 512), None, None), ((3, 512, 528), None, 256), ((3, 1024, 1024), 0, None), ((3, 128, 128), 64, 64)],
)
def test_what_is_tiled(shape: tuple[int, ...], tile: int | None, expected: int | None) -> None:
    prior: Any = SimpleNamespace(name="any", image_size=256, multiple=16)
    found = choose_tiling(prior, shape, tile)
    assert (None if found is None else found.size) == expected


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [(60, None, "a tile of 60 pixels; prior any takes multiples of 16"), (64, 40, "at most half of a tile")],
)
def test_tiles_that_do_not_fit(tile: int, overlap: int | None, message: str) -> None:
    prior: Any = SimpleNamespace(name="any", image_size=256, multiple=16)
    with pytest.raises(ValueError, match=message):
        choose_tiling(prior, (3, 512, 512), tile, overlap)


@pytest.mark.parametrize("solver", ["diffpir", "dps", "psld"])
def test_restoring_in_tiles(solver: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (100, 170, 3), dtype=np.uint8)
    output = restore(picture, task="gaussian_deblur", solver=solver, steps=2, tile=64)
    assert output.images.shape == picture.shape
    assert bool(torch.isfinite(output.x).all())
