"""Perturbations of the block that a self-attention layer stands in: its tokens shuffled, or the block skipped.

The block is the transformer block in Stable Diffusion, and the attention with its residual connection in ADM.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pag_inverse.guidance.perturbation import PassContext, Perturbation
from pag_inverse.settings import settings

WITHIN = ".attn1"  # the self-attention of a transformer block


class BlockPerturbation(Perturbation):
    """A perturbation of the whole block of a layer."""

    def module(self, layer: str) -> str:
        """The name of the block."""
        return layer.removesuffix(WITHIN)


@settings
class TokenShuffle(BlockPerturbation):
    """The tokens that enter the block are permuted at random, one permutation an image (TPG, Rajabi et al., 2025)."""

    scale: ClassVar[float] = 3.0
    random: ClassVar[bool] = True

    def install(self, network: nn.Module, layer: str, context: PassContext) -> None:
        """Shuffle what the block is called with."""
        hook = partial(_shuffle, layer, context)
        network.get_submodule(self.module(layer)).register_forward_pre_hook(hook)


@settings
class Skip(BlockPerturbation):
    """The block is left out: its output is its input (skip-layer guidance of Stable Diffusion 3.5)."""

    scale: ClassVar[float] = 2.8

    def install(self, network: nn.Module, layer: str, context: PassContext) -> None:
        """Put what returns its input in the place of the block."""
        parent, _, child = self.module(layer).rpartition(".")
        setattr(network.get_submodule(parent), child, _Skipped())


class _Skipped(nn.Module):
    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states


@torch.compiler.disable  # it makes generators, which the compiler does not know
def _shuffle(layer: str, context: PassContext, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a block with the tokens of each image permuted; they are (B, N, C) or (B, C, H, W)."""
    hidden_states, *others = given
    spatial = hidden_states.ndim == 4
    x = hidden_states.flatten(2).transpose(1, 2) if spatial else hidden_states
    orders = [torch.randperm(x.shape[1], generator=g).to(x.device) for g in context.generators(layer)]
    shuffled = torch.stack([image[order] for image, order in zip(x, orders, strict=True)])
    return (shuffled.transpose(1, 2).reshape(hidden_states.shape) if spatial else shuffled, *others)
