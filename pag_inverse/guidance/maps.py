"""Perturbations of the self-attention map A = softmax(Q K^T / sqrt(d)) (Ahn et al., 2024, Table 9)."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from operators.validation import Odd
from pag_inverse.guidance.attention import SelfAttentionProcessor, heads_at_once, merged, projections
from pag_inverse.guidance.blurs import LARGEST_KERNEL, gaussian
from pag_inverse.guidance.perturbation import PassContext, Perturbation
from pag_inverse.settings import NonNegative, Positive, Unit, settings

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention


class MapPerturbation(Perturbation):
    """A perturbation that is a function of the map alone."""

    @abc.abstractmethod
    def change(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        """The perturbed maps of the maps (heads, N, N) of one image, whose rows sum to 1."""

    def install(self, network: nn.Module, layer: str, context: PassContext) -> None:
        """Set the attention processor."""
        attention: Any = network.get_submodule(layer)
        attention.set_processor(ChangedMapAttention(self, layer, context))


class ChangedMapAttention(SelfAttentionProcessor):
    """An attention processor that writes the map out and changes it: out = to_out(change(A) V)."""

    def __init__(self, perturbation: MapPerturbation, layer: str, context: PassContext) -> None:
        self.perturbation, self.layer, self.context = perturbation, layer, context

    @torch.compiler.disable  # it makes generators, which the compiler does not know
    def attended(self, attn: Attention, x: Tensor, hidden_states: Tensor) -> Tensor:
        """The values under the changed maps, each image's draws by itself."""
        images = zip(*projections(attn, x), self.context.generators(self.layer), strict=True)
        return merged(torch.stack([self._attend(attn, *image) for image in images]))

    def _attend(self, attn: Attention, q: Tensor, k: Tensor, v: Tensor, generator: torch.Generator) -> Tensor:
        """The values (heads, N, d) of one image under its changed maps, some heads at once."""
        size = heads_at_once(q.shape[1])
        found = []
        for first in range(0, len(q), size):
            part = slice(first, first + size)
            maps = self.perturbation.change(attn.get_attention_scores(q[part], k[part]), generator)
            found.append(maps @ v[part])
        return torch.cat(found)


@settings
class RandomMask(MapPerturbation):
    """A random share of the map's entries is zero; the others of a row are scaled so that the row sums to 1.

    ratio: the probability of each entry to be zero, 0 to 1. A row without any entry left is zero.
    """

    ratio: Annotated[Unit, Field(description="share of the map's entries that are zero")] = 0.25
    random: ClassVar[bool] = True

    def change(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        """The masked maps."""
        return masked(maps, self.keep(maps, generator))

    def keep(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        """Which entries of the maps stay, (heads, N, N)."""
        uniform = [torch.rand(maps.shape[1:], generator=generator) for _ in maps]  # a head at a time: any chunks agree
        return (torch.stack(uniform) >= self.ratio).to(maps.device)


@settings
class OffDiagonalMask(RandomMask):
    """A random share of the entries off the map's diagonal is zero; each row is scaled to sum to 1.

    ratio: the probability of each such entry to be zero, 0 to 1; at 1 the map is the identity.
    """

    def keep(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        """Which entries of the maps stay, (heads, N, N)."""
        diagonal = torch.eye(maps.shape[-1], dtype=torch.bool, device=maps.device)
        return super().keep(maps, generator) | diagonal


@settings
class AdditiveNoise(MapPerturbation):
    """A + std n, n ~ N(0, I). Its rows do not sum to 1.

    std: standard deviation of the noise, 0 or more; entries of a map lie in [0, 1].
    """

    std: Annotated[NonNegative, Field(le=1e3, description="standard deviation of the map's noise")] = 0.1
    random: ClassVar[bool] = True

    def change(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        """The noisy maps."""
        n = torch.stack([torch.randn(maps.shape[1:], generator=generator) for _ in maps])
        return maps + self.std * n.to(maps)


@settings
class BlurredMap(MapPerturbation):
    """The map (N, N) blurred along its rows and columns by a Gaussian.

    kernel: entries of the Gaussian, an odd number. std: its standard deviation in entries. Beyond an edge the map is
    mirrored, the edge included, so that rows still sum to 1.
    """

    kernel: Annotated[Odd, Field(le=LARGEST_KERNEL, description="entries of the Gaussian, odd")] = 5
    std: Annotated[Positive, Field(le=1e4, description="standard deviation of the Gaussian, in entries")] = 1.0

    def change(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        """The blurred maps."""
        weights = gaussian(self.kernel, self.std).tolist()
        return _blurred(_blurred(maps, -1, weights), -2, weights)


def masked(maps: Tensor, keep: Tensor) -> Tensor:
    """The maps where `keep` is true, with rows that sum to 1; a row of which nothing is left is zero."""
    left = maps * keep
    total = left.sum(dim=-1, keepdim=True)
    return left / torch.where(total > 0, total, torch.ones_like(total))


def _blurred(maps: Tensor, dim: int, weights: list[float]) -> Tensor:
    """The weighted sum of shifted maps, mirrored beyond their edges (d c b a | a b c d | d c b a)."""
    n, radius = maps.shape[dim], len(weights) // 2
    place = torch.arange(-radius, n + radius, device=maps.device) % (2 * n)
    wide = maps.index_select(dim, torch.where(place < n, place, 2 * n - 1 - place))
    found = torch.zeros_like(maps)
    for shift, weight in enumerate(weights):
        found += weight * wide.narrow(dim, shift, n)
    return found
