"""The parts of a self-attention layer of diffusers, for the processors of this folder."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention

LARGEST_MAP = 2**25  # entries of the maps that are held at once


class SelfAttentionProcessor(abc.ABC):
    """An attention processor of diffusers for a self-attention layer; ValueError for a cross-attention."""

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
            raise ValueError("self-attention maps alone can be perturbed; this is a cross-attention")
        return outputs(attn, self.attended(attn, tokens(attn, hidden_states), hidden_states), hidden_states)

    @abc.abstractmethod
    def attended(self, attn: Attention, x: Tensor, hidden_states: Tensor) -> Tensor:
        """The attended values (B, N, C) of the normalised tokens x (B, N, C) of a layer's input."""


def tokens(attn: Attention, hidden_states: Tensor) -> Tensor:
    """The normalised tokens (B, N, C) of a layer's input, which is (B, N, C) or, in ADM, (B, C, H, W)."""
    x = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
    return x if attn.group_norm is None else attn.group_norm(x.transpose(1, 2)).transpose(1, 2)


def projections(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, N, d) of tokens."""
    q, k, v = (attn.head_to_batch_dim(part(x), out_dim=4) for part in (attn.to_q, attn.to_k, attn.to_v))
    q = q if attn.norm_q is None else attn.norm_q(q)
    return q, k if attn.norm_k is None else attn.norm_k(k), v


def merged(x: Tensor) -> Tensor:
    """Heads (B, heads, N, d) side by side, (B, N, heads d)."""
    return x.transpose(1, 2).flatten(2)


def outputs(attn: Attention, x: Tensor, hidden_states: Tensor) -> Tensor:
    """The layer's output from its attended values (B, N, C), in the shape of its input."""
    x = attn.to_out[0](x)
    if hidden_states.ndim == 4:
        x = x.transpose(1, 2).reshape(hidden_states.shape)
    if attn.residual_connection:
        x = x + hidden_states
    return x / attn.rescale_output_factor


def heads_at_once(count: int) -> int:
    """How many maps of `count` tokens are held at once."""
    return max(1, LARGEST_MAP // count**2)
