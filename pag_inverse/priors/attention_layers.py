"""The self-attention layers of a network by name, in the checkpoint's own words and in diffusers'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class AttentionLayer:
    """A self-attention layer in the published checkpoint's words and in diffusers'."""

    checkpoint: str
    diffusers: str


def self_attention_layers(network: Any) -> list[AttentionLayer]:
    """The self-attention layers of a diffusers U-Net, in the order of its modules."""
    from diffusers.models.attention_processor import Attention  # slow to import: only where a network is at hand

    names = [n for n, m in network.named_modules() if isinstance(m, Attention) and not m.is_cross_attention]
    return [AttentionLayer(checkpoint_name(name, network.config.layers_per_block), name) for name in names]


def checkpoint_name(name: str, layers_per_block: int | Sequence[int]) -> str:
    """A diffusers layer name in the words of ADM and LDM checkpoints (`down_blocks.4.attentions.0` of a network with
    one block a level is `input_blocks.9.1`)."""
    parts = name.split(".")
    if parts[0] == "mid_block":
        return ".".join(["middle_block", "1", *parts[3:]])
    side, block, _, layer, *rest = parts
    first = 1 if side == "down_blocks" else 0
    if isinstance(layers_per_block, int):
        before = int(block) * (layers_per_block + 1)
    else:  # by level, from the finest
        levels = list(layers_per_block)[:: 1 if first else -1]
        before = sum(levels[: int(block)]) + int(block)
    index = first + before + int(layer)
    return ".".join(["input_blocks" if side == "down_blocks" else "output_blocks", str(index), "1", *rest])


def resolve_layers(network: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """The diffusers names of the layers that `names` gives in either language; ValueError for any other name."""
    known = self_attention_layers(network)
    lookup = {word: layer.diffusers for layer in known for word in (layer.checkpoint, layer.diffusers)}
    for name in names:
        if name not in lookup:
            there = ", ".join(f"{layer.checkpoint} (= {layer.diffusers})" for layer in known) or "none"
            raise ValueError(f"layer {name!r} holds no self-attention of this prior; those that do: {there}")
    return tuple(dict.fromkeys(lookup[name] for name in names))
