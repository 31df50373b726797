"""Each perturbation against its equation, on an attention whose map is written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.pipelines.pag.pag_utils import PAGMixin
from torch import Tensor, nn

from pag_inverse import PerturbedAttentionGuidance, PixelPrior
from pag_inverse.guidance import attention as attention_parts
from pag_inverse.guidance import make_combination, make_perturbation
from pag_inverse.guidance.maps import OffDiagonalMask, RandomMask
from pag_inverse.guidance.perturbation import Identity, PassContext
from pag_inverse.guidance.sag import AdversarialBlur
from pag_inverse.guidance.seg import token_sides
from pag_inverse.runtime.streams import stream_seed

HEADS, SIDES, T, SEEDS = 2, (4, 6), 500, (11, 12)


class Layer:
    """An attention of 32 channels and its input: (B, C, H, W) as in ADM, or tokens as in a transformer block."""

    def __init__(self, spatial: bool, sides: tuple[int, int] = SIDES) -> None:
        torch.manual_seed(0)
        own = {"norm_num_groups": 8, "bias": True} if spatial else {}
        self.attention = Attention(32, heads=HEADS, dim_head=16, residual_connection=spatial, **own).eval()
        self.x = torch.randn(2, 32, *sides) if spatial else torch.randn(2, math.prod(sides), 32)
        self.network, self.context = nn.ModuleDict({"attn": self.attention}), PassContext((8, 12), T, SEEDS)

    @torch.no_grad()
    def perturbed(self, name: Any) -> Tensor:
        """The layer's output under a perturbation."""
        make_perturbation(name).install(self.network, "attn", self.context)
        return self.network["attn"](self.x)

    @torch.no_grad()
    def written_out(
        self,
        change: Callable[[Tensor, int], Tensor] = lambda maps, b: maps,
        queries: Callable[[Tensor], Tensor] = lambda q: q,
    ) -> Tensor:
        """The output by hand: `change` of the maps (heads, N, N) of image b, `queries` of one head's (N, d)."""
        a, spatial = self.attention, self.x.ndim == 4
        tokens = a.group_norm(self.x).flatten(2).transpose(1, 2) if spatial else self.x
        found = []
        for b, image in enumerate(tokens):
            q, k, v = (part(image).reshape(-1, HEADS, 16) for part in (a.to_q, a.to_k, a.to_v))
            heads = range(HEADS)
            maps = torch.stack([torch.softmax(queries(q[:, h]) @ k[:, h].T / 16**0.5, dim=-1) for h in heads])
            changed = change(maps, b)
            found.append(a.to_out[0](torch.cat([changed[h] @ v[:, h] for h in heads], dim=-1)))
        out = torch.stack(found)
        return out.transpose(1, 2).reshape(self.x.shape) + self.x if spatial else out


def drawn(b: int, draw: Callable[..., Tensor], n: int) -> Tensor:
    """What is drawn for the heads of image b."""
    generator = torch.Generator().manual_seed(stream_seed(SEEDS[b], f"{T}|attn", "perturbation"))
    return torch.stack([draw((n, n), generator=generator) for _ in range(HEADS)])


def random_mask(maps: Tensor, b: int) -> Tensor:
    kept = maps * (drawn(b, torch.rand, maps.shape[-1]) >= 0.25)
    return kept / kept.sum(dim=-1, keepdim=True)


def off_diagonal_mask(maps: Tensor, b: int) -> Tensor:
    n = maps.shape[-1]
    keep = (drawn(b, torch.rand, n) >= 0.25).numpy() | np.eye(n, dtype=bool)
    kept = maps * torch.from_numpy(keep)
    return kept / kept.sum(dim=-1, keepdim=True)


def additive_noise(maps: Tensor, b: int) -> Tensor:
    return maps + 0.1 * drawn(b, torch.randn, maps.shape[-1])


def blurred_map(maps: Tensor, b: int) -> Tensor:
    """scipy's "reflect" repeats the entry at the edge, as ours does."""
    blurred = scipy.ndimage.gaussian_filter(maps.double().numpy(), 1.0, mode="reflect", radius=2, axes=(1, 2))
    return torch.from_numpy(blurred).float()


EQUATIONS = [random_mask, off_diagonal_mask, additive_noise, blurred_map]


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("equation", EQUATIONS, ids=lambda equation: equation.__name__)
def test_a_map_is_perturbed_as_written(
    equation: Callable[[Tensor, int], Tensor], spatial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer(spatial)
    found = layer.perturbed(equation.__name__)
    torch.testing.assert_close(found, layer.written_out(equation), atol=1e-5, rtol=1e-4)
    assert (found - layer.written_out()).abs().max() > 1e-3
    monkeypatch.setattr(attention_parts, "LARGEST_MAP", 1)  # a head at a time
    torch.testing.assert_close(layer.perturbed(equation.__name__), found, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [RandomMask, OffDiagonalMask])
@pytest.mark.parametrize("ratio", [0.25, 0.9])
def test_masks_have_the_stated_ratio(kind: type[RandomMask], ratio: float) -> None:
    keep = kind(ratio).keep(torch.zeros(4, 256, 256), torch.Generator().manual_seed(0))
    diagonal = torch.eye(256, dtype=torch.bool)
    share = 1 - keep[:, ~diagonal].float().mean().item()
    assert share == pytest.approx(ratio, abs=5 * (ratio * (1 - ratio) / (4 * 255 * 256)) ** 0.5)  # 5 standard errors
    of_diagonal = 1 - keep[:, diagonal].float().mean().item()
    assert of_diagonal == (0 if kind is OffDiagonalMask else pytest.approx(ratio, abs=0.07))


@pytest.mark.parametrize(
    "name", ["random_mask", "random_mask:ratio=0.5", "off_diagonal_mask:ratio=0.9", "blurred_map:kernel=99,std=20.0"]
)
def test_rows_of_a_perturbed_map_sum_to_one(name: str) -> None:
    maps = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    perturbation: Any = make_perturbation(name)
    changed = perturbation.change(maps, torch.Generator().manual_seed(1))
    torch.testing.assert_close(changed.sum(dim=-1), torch.ones(2, 32), atol=1e-5, rtol=0)
    assert (changed >= 0).all() and not torch.equal(changed, maps)


def test_masks_at_their_bounds() -> None:
    """Nothing masked is the plain layer; all off the diagonal is PAG's identity; an empty map attends to nothing."""
    layer = Layer(spatial=True)
    torch.testing.assert_close(layer.perturbed("random_mask:ratio=0"), layer.written_out(), atol=1e-5, rtol=1e-4)
    identity = layer.perturbed(Identity())
    torch.testing.assert_close(layer.perturbed("off_diagonal_mask:ratio=1"), identity, atol=1e-5, rtol=1e-4)
    empty = layer.perturbed("random_mask:ratio=1")
    torch.testing.assert_close(empty, layer.written_out(lambda maps, b: 0 * maps))


def smoothed(q: Tensor) -> Tensor:
    """sigma 0.7 has ceil(4.2) = 5 entries; scipy's "mirror" leaves the edge out."""
    picture = q.reshape(*SIDES, -1).double().numpy()
    blurred = scipy.ndimage.gaussian_filter(picture, 0.7, mode="mirror", radius=2, axes=(0, 1))
    return torch.from_numpy(blurred).float().reshape(q.shape)


@pytest.mark.parametrize("spatial", [True, False])
def test_seg_is_its_equation(spatial: bool) -> None:
    layer = Layer(spatial)
    layer.attention.set_processor(AttnProcessor2_0())
    with torch.no_grad():
        plain = layer.attention(layer.x)
    assert torch.equal(layer.perturbed("seg:sigma=0"), plain)
    expected = layer.written_out(queries=smoothed)
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(layer.perturbed("seg:sigma=0.7"), expected, atol=1e-5, rtol=1e-4)
    uniform = layer.written_out(queries=lambda q: q.mean(dim=0, keepdim=True).expand(q.shape))
    for infinite in ("seg", "seg:sigma=inf", "seg:sigma=10000"):
        torch.testing.assert_close(layer.perturbed(infinite), uniform, atol=1e-5, rtol=1e-4)
    # A very wide kernel comes near to the mean, also where it is wider than the picture.
    torch.testing.assert_close(layer.perturbed("seg:sigma=500.0"), uniform, atol=2e-2, rtol=0)


def test_where_tokens_lie() -> None:
    assert token_sides(torch.zeros(1, 15, 8), (9, 17)) == (3, 5)  # halved with ceiling: 5 x 9, 3 x 5
    assert token_sides(torch.zeros(1, 8, 4, 7), (1, 1)) == (4, 7)
    with pytest.raises(ValueError, match="16 tokens have no place on a state of 9 x 17"):
        token_sides(torch.zeros(1, 16, 8), (9, 17))


class Block(nn.Module):
    """A stand-in for a block: it hands on what it is called with."""

    def forward(self, hidden_states: Tensor, temb: Tensor | None = None) -> Tensor:
        return 2 * hidden_states


@pytest.mark.parametrize("shape", [(2, 8, 4, 6), (2, 24, 8)])
def test_blocks_are_shuffled_and_skipped(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = {}
    for name in ("token_shuffle", "skip"):
        network = nn.ModuleDict({"block": Block()})
        make_perturbation(name).install(network, "block.attn1", PassContext(SIDES, T, SEEDS))
        found[name] = network["block"](x, temb=None)
    assert torch.equal(found["skip"], x)
    tokens, shuffled = (y.flatten(2).transpose(1, 2) if y.ndim == 4 else y for y in (2 * x, found["token_shuffle"]))
    orders = []
    for b, seed in enumerate(SEEDS):
        generator = torch.Generator().manual_seed(stream_seed(seed, f"{T}|block.attn1", "perturbation"))
        orders.append(torch.randperm(24, generator=generator))
        assert torch.equal(shuffled[b], tokens[b][orders[b]])
    assert not torch.equal(orders[0], orders[1])


def test_sag_blurs_where_the_map_is_high(pixel: PixelPrior) -> None:
    """x_t' = sqrt(abar) x0' + sqrt(1 - abar) eps, with x0' blurred where a token receives more than the mean."""
    layer, z = "up_blocks.0.attentions.0", torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    abar = float(np.cumprod(1 - pixel.betas)[T])
    seen: list[Tensor] = []
    hook = pixel.unet.get_submodule(layer).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        eps = pixel.predict(z, T).eps
        hook.remove()
        a: Any = pixel.unet.get_submodule(layer)
        x = a.group_norm(seen[0]).flatten(2).transpose(1, 2)
        q, k = (part(x).unflatten(-1, (a.heads, -1)).transpose(1, 2) for part in (a.to_q, a.to_k))
        received = torch.softmax(q @ k.transpose(-1, -2) * a.scale, dim=-1).mean(dim=1).sum(dim=1)
        side = seen[0].shape[-1]
        high = (
            (received > 1).reshape(2, 1, side, side).repeat_interleave(32 // side, 2).repeat_interleave(32 // side, 3)
        )
        x0 = (z - (1 - abar) ** 0.5 * eps) / abar**0.5
        wide = scipy.ndimage.gaussian_filter(x0.double().numpy(), 1.0, mode="mirror", radius=4, axes=(2, 3))
        degraded = abar**0.5 * torch.where(high, torch.from_numpy(wide).float(), x0) + (1 - abar) ** 0.5 * eps
        expected = eps + 2 * (eps - pixel.predict(degraded, T).eps)
        found = PerturbedAttentionGuidance(2.0, [layer], perturbation="sag")(pixel, z, T)
        none = PerturbedAttentionGuidance(2.0, [layer], perturbation=AdversarialBlur(threshold=1e3))(pixel, z, T)
    assert 0.1 < high.float().mean() < 0.9 and (degraded - z).abs().max() > 0.1
    torch.testing.assert_close(found.guided, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(none.guided, eps, atol=1e-3, rtol=1e-3)


def test_apg_clips_and_projects_each_image() -> None:
    g = torch.Generator().manual_seed(0)
    eps, d = torch.randn(2, 4, 64, 64, generator=g), torch.randn(2, 4, 64, 64, generator=g)
    d[0] *= 100 / d[0].norm()
    d[1] *= 5 / d[1].norm()
    rule = make_combination("apg:radius=15.0,eta=0.25")
    found = rule(d, eps)
    for b, clipped in ((0, d[0] * 15 / 100), (1, d[1])):
        direction = eps[b] / eps[b].norm()
        along = (clipped * direction).sum() * direction
        torch.testing.assert_close(found[b], clipped - along + 0.25 * along, atol=1e-5, rtol=1e-4)
    across = make_combination("apg")(d, eps)
    assert ((across * eps).flatten(1).sum(1).abs() < 1e-3 * eps.flatten(1).norm(dim=1)).all()
    torch.testing.assert_close(make_combination("apg:radius=null,eta=1.0")(d, eps), d)
    # A state of a quarter of the entries has half of the radius.
    quarter = make_combination("apg:eta=1.0")(100 * d[:, :1], eps[:, :1])
    torch.testing.assert_close(quarter.flatten(1).norm(dim=1), torch.full((2,), 7.5))


@pytest.mark.parametrize("t", [999, 700, 400, 0])
def test_the_adaptive_scale_is_that_of_diffusers(t: int, pixel: PixelPrior) -> None:
    theirs = PAGMixin()
    theirs._pag_scale, theirs._pag_adaptive_scale, theirs.pag_applied_layers = 3.0, 0.005, ["mid"]
    layer = pixel.layers()[0].diffusers
    guidance = PerturbedAttentionGuidance(3.0, [layer], adaptive=0.005)
    assert guidance.scale(t) == pytest.approx(theirs._get_pag_scale(t))
    z = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    eps = guidance(pixel, z, t)
    assert torch.equal(eps.guided, eps.unguided.detach()) == (t <= 400)
