"""Perturbed self-attention: PSA(Q, K, V) = V (Eq. 13), on exactly named layers of a diffusers network.

The perturbed network is a twin: a second set of modules over the very same parameter tensors, with other attention
processors. The network that carries the gradient is never touched, so neither a backward pass nor gradient
checkpointing, which runs a forward again inside it, can meet a perturbed layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:  # diffusers takes longer to import than torch: only where a network is at hand
    from diffusers.models.attention_processor import Attention


@dataclass(frozen=True)
class AttentionLayer:
    """A self-attention layer in the published checkpoint's words and in diffusers'."""

    checkpoint: str
    diffusers: str


class IdentitySelfAttention:
    """An attention processor whose attention map is the identity: out = to_out(to_v(x)) (Eq. 13)."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        if encoder_hidden_states is not None:
            raise ValueError("the identity replaces self-attention maps only; this is a cross-attention")
        x = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        x = attn.to_out[0](attn.to_v(x))
        if hidden_states.ndim == 4:
            x = x.transpose(1, 2).reshape(hidden_states.shape)
        if attn.residual_connection:
            x = x + hidden_states
        return x / attn.rescale_output_factor


def self_attention_layers(model: Any) -> list[AttentionLayer]:
    """The self-attention layers of a diffusers U-Net, in the order of its modules."""
    from diffusers.models.attention_processor import Attention

    names = [n for n, m in model.named_modules() if isinstance(m, Attention) and not m.is_cross_attention]
    return [AttentionLayer(checkpoint_name(name, model.config.layers_per_block), name) for name in names]


def checkpoint_name(name: str, layers_per_block: int) -> str:
    """A diffusers layer name in the words of ADM and LDM checkpoints (`down_blocks.4.attentions.0` of a network with
    one block a level is `input_blocks.9.1`)."""
    parts = name.split(".")
    if parts[0] == "mid_block":
        return ".".join(["middle_block", "1", *parts[3:]])
    side, block, _, layer, *rest = parts
    first = 1 if side == "down_blocks" else 0
    index = first + int(block) * (layers_per_block + 1) + int(layer)
    return ".".join(["input_blocks" if side == "down_blocks" else "output_blocks", str(index), "1", *rest])


def resolve_layers(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """The diffusers names of the layers that `names` gives in either language; ValueError for any other name."""
    known = self_attention_layers(model)
    lookup = {word: layer.diffusers for layer in known for word in (layer.checkpoint, layer.diffusers)}
    for name in names:
        if name not in lookup:
            there = ", ".join(f"{layer.checkpoint} (= {layer.diffusers})" for layer in known) or "none"
            raise ValueError(f"layer {name!r} holds no self-attention of this prior; those that do: {there}")
    return tuple(dict.fromkeys(lookup[name] for name in names))


def perturbed_twin(model: nn.Module, layers: Sequence[str]) -> Any:
    """A network that shares every parameter with `model` and has the identity in place of the named attention maps."""
    chosen = resolve_layers(model, layers)
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    twin: Any = copy.deepcopy(model, shared)
    for name in chosen:
        twin.get_submodule(name).set_processor(IdentitySelfAttention())
    return twin
