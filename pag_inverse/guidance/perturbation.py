"""Perturbed self-attention: PSA(Q, K, V) = V (Eq. 13), on exactly named layers of a diffusers network.

A perturbed network is a twin: a second set of modules over the very same parameter tensors, with other attention
processors. The network that carries the gradient is never touched, so neither a backward pass nor gradient
checkpointing, which runs a forward again inside it, can meet a perturbed layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pag_inverse.priors.attention_layers import resolve_layers

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention


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


def twin(network: nn.Module) -> Any:
    """A network with modules of its own and every parameter and buffer shared with `network`."""
    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    return copy.deepcopy(network, shared)


def perturbed_twin(network: nn.Module, layers: Sequence[str]) -> Any:
    """A twin of `network` that has the identity in place of the named attention maps."""
    perturbed = twin(network)
    for name in resolve_layers(network, layers):
        perturbed.get_submodule(name).set_processor(IdentitySelfAttention())
    return perturbed
