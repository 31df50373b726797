"""Large pictures: the prior sees overlapping tiles of the state, the measurement is met by the whole picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pag_inverse.guidance import Guidance, GuidedModel
from pag_inverse.guidance.guidance import GuidedEps
from pag_inverse.priors import LatentPrior, Prior
from pag_inverse.priors.base import Draw

WHOLE = 2  # pictures up to so many times the side of the prior's own are not tiled
OVERLAP = 4  # an overlap is this part of a tile

Tile = tuple[slice, slice]
Function = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Tiling:
    """Square tiles of `size` that overlap by at least `overlap`, in pixels of the state.

    ValueError: a size below 1, or an overlap that is negative or more than half of the size.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap <= self.size // 2:
            raise ValueError(f"tiles of {self.size} with an overlap of {self.overlap}; it is at most half of a tile")

    def tiles(self, height: int, width: int) -> list[Tile]:
        """The tiles of a state, evenly spread; a side that is shorter than a tile has one."""
        return [(rows, columns) for rows in self._line(height) for columns in self._line(width)]

    def window(self, tile: Tile, height: int, width: int) -> Tensor:
        """The weight of each pixel of a tile, (h, w): 1, and falling to 0 as a cosine where others overlap it."""
        rows, columns = (self._ramp(part, side) for part, side in zip(tile, (height, width), strict=True))
        return rows[:, None] * columns[None, :]

    def _line(self, side: int) -> list[slice]:
        if side <= self.size:
            return [slice(0, side)]
        count = math.ceil((side - self.overlap) / (self.size - self.overlap))
        starts = [round(k * (side - self.size) / (count - 1)) for k in range(count)]
        return [slice(start, start + self.size) for start in starts]

    def _ramp(self, part: slice, side: int) -> Tensor:
        weights = torch.ones(part.stop - part.start)
        if self.overlap:
            rise = torch.sin(math.pi / 2 * (torch.arange(self.overlap) + 0.5) / self.overlap).square()
            if part.start > 0:
                weights[: self.overlap] = rise
            if part.stop < side:
                weights[-self.overlap :] = rise.flip(0)
        return weights


def blend(function: Function, z: Tensor, tiling: Tiling, scale: float = 1.0) -> tuple[Tensor, ...]:
    """The results of `function` on each tile of z (B, C, H, W), blended in their overlaps, without a graph.

    A result is `scale` times as large as its tile along both sides.
    """
    height, width = z.shape[-2:]
    large = Tiling(round(tiling.size * scale), round(tiling.overlap * scale))
    shape = round(height * scale), round(width * scale)
    sums: list[Tensor] = []
    total = torch.zeros(shape, device=z.device)
    for tile in tiling.tiles(height, width):
        there: Any = tuple(slice(round(part.start * scale), round(part.stop * scale)) for part in tile)
        results = function(z[..., tile[0], tile[1]])
        window = large.window(there, *shape).to(z.device)
        sums = sums or [z.new_zeros((*result.shape[:2], *shape)) for result in results]
        for found, result in zip(sums, results, strict=True):
            found[..., there[0], there[1]] += window * result
        total[there] += window
    return tuple(found / total for found in sums)


class _Blended(torch.autograd.Function):
    """Blended results of `run`, which are known already; the backward pass runs each tile again."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, known: Tensor, run: Callable[[Tensor], Tensor], tiling: Tiling, scale: float
    ) -> Tensor:
        ctx.save_for_backward(z)
        ctx.run, ctx.tiling, ctx.scale = run, tiling, scale
        return known.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (z,) = ctx.saved_tensors
        return _pull_back(ctx.run, z, grads[0], ctx.tiling, ctx.scale), None, None, None, None


def _pull_back(run: Callable[[Tensor], Tensor], z: Tensor, grad: Tensor, tiling: Tiling, scale: float) -> Tensor:
    """The gradient at z of <blended results, grad>, tile by tile."""
    height, width = z.shape[-2:]
    large, shape = Tiling(round(tiling.size * scale), round(tiling.overlap * scale)), grad.shape[-2:]
    tiles = tiling.tiles(height, width)
    windows: list[tuple[Tile, Any, Tensor]] = []
    total = torch.zeros(shape, device=z.device)
    for tile in tiles:
        there: Any = tuple(slice(round(part.start * scale), round(part.stop * scale)) for part in tile)
        windows.append((tile, there, large.window(there, *shape).to(z.device)))
        total[there] += windows[-1][2]
    found = torch.zeros_like(z)
    for tile, there, window in windows:
        with torch.enable_grad():
            part = z[..., tile[0], tile[1]].detach().requires_grad_(True)
            weighted = window / total[there] * grad[..., there[0], there[1]]
            (pulled,) = torch.autograd.grad(run(part), part, weighted)
        found[..., tile[0], tile[1]] += pulled
    return found


@dataclass(frozen=True)
class TiledModel(GuidedModel):
    """A prior under a guidance that looks at a large state tile by tile.

    eps and the decoded picture are blended over the overlaps by a smooth window. Where a graph is asked for, the
    backward pass runs each tile again: memory is bounded by a tile.
    """

    tiling: Tiling = Tiling(256, 64)

    def _predict(self, z: Tensor, t: int) -> GuidedEps:
        if len(self.tiling.tiles(z.shape[-2], z.shape[-1])) == 1:
            return super()._predict(z, t)
        watched = () if self.watch is None else ("perturbed", "signal")  # blended only where they are looked at
        names: list[str] = []

        def passes(tile: Tensor) -> tuple[Tensor, ...]:
            eps = self.guidance(self.prior, tile, t)
            wanted = ("guided", "unguided", "variance_fraction", *watched)
            names[:] = [name for name in wanted if getattr(eps, name) is not None]
            return tuple(getattr(eps, name).detach() for name in names)

        with torch.no_grad():
            parts = blend(passes, z.detach(), self.tiling)
        found: dict[str, Any] = dict(zip(names, parts, strict=True))
        if torch.is_grad_enabled() and z.requires_grad:
            run = partial(self.plain, t=t)
            found["unguided"] = _Blended.apply(z, found["unguided"], run, self.tiling, 1.0)
        return GuidedEps(**{"variance_fraction": None, **found})

    def decode(self, z: Tensor) -> Tensor:
        """The image (B, 3, H, W) of a state."""
        return self._blended(self.prior.decode, z, self.tiling, _factor(self.prior))

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """The state of an image (B, 3, H, W); with `draw`, a sample for each tile."""
        factor = round(_factor(self.prior))
        tiling = Tiling(self.tiling.size * factor, self.tiling.overlap * factor)
        return self._blended(lambda tile: self.prior.encode(tile, draw), x, tiling, 1 / factor)

    def _blended(self, run: Callable[[Tensor], Tensor], z: Tensor, tiling: Tiling, scale: float) -> Tensor:
        if not isinstance(self.prior, LatentPrior) or len(tiling.tiles(z.shape[-2], z.shape[-1])) == 1:
            return run(z)
        with torch.no_grad():
            (known,) = blend(lambda tile: (run(tile),), z.detach(), tiling, scale)
        if not (torch.is_grad_enabled() and z.requires_grad):
            return known
        return _Blended.apply(z, known, run, tiling, scale)


def _factor(prior: Prior) -> float:
    """How many pixels a pixel of the state is wide."""
    return float(prior.factor) if isinstance(prior, LatentPrior) else 1.0


def choose_tiling(
    prior: Prior, image_shape: Sequence[int], tile: int | None = None, overlap: int | None = None
) -> Tiling | None:
    """The tiling of pictures (3, H, W); None where they are taken whole.

    `tile` and `overlap` are in pixels of the picture; a tile of 0 is none. By default pictures are tiled whose sides
    are on average more than WHOLE times the prior's own; a tile is then as large as the pictures of its training.
    ValueError: a tile that the prior cannot take, or an overlap of more than half a tile.
    """
    _, height, width = image_shape
    factor = round(_factor(prior))
    if tile is None:
        tile = prior.image_size if height * width > (WHOLE * prior.image_size) ** 2 else 0
    if tile == 0:
        return None
    if tile % prior.multiple or tile < prior.multiple:
        raise ValueError(f"a tile of {tile} pixels; prior {prior.name} takes multiples of {prior.multiple}")
    found = Tiling(tile // factor, (tile // OVERLAP if overlap is None else overlap) // factor)
    return found if len(found.tiles(height // factor, width // factor)) > 1 else None


def model_for(
    prior: Prior, guidance: Guidance, image_shape: Sequence[int], tile: int | None = None, overlap: int | None = None
) -> GuidedModel:
    """A prior under a guidance for pictures (3, H, W), in tiles where `choose_tiling` says so."""
    tiling = choose_tiling(prior, prior.canvas_shape(tuple(image_shape)), tile, overlap)
    return GuidedModel(prior, guidance) if tiling is None else TiledModel(prior, guidance, tiling)
