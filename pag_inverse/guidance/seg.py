"""Smoothed energy guidance: the queries of a self-attention layer are blurred (Hong, 2024)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from operators.validation import short
from pag_inverse.guidance.attention import SelfAttentionProcessor, merged, projections
from pag_inverse.guidance.blurs import blur_2d
from pag_inverse.guidance.perturbation import PassContext, Perturbation
from pag_inverse.settings import check_number, settings

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention

INFINITE = 9999.0  # a larger sigma is infinite


def _sigma(value: object) -> object:
    if value in ("inf", math.inf):
        return "inf"
    try:
        return check_number("sigma", value)
    except ValueError:
        raise ValueError(f"sigma is {short(value)}; it must be a number, at least 0, or inf") from None


@settings
class SmoothedEnergy(Perturbation):
    """softmax(G_sigma(Q) K^T / sqrt(d)) V: the queries, laid out as a picture, blurred by a Gaussian (SEG, Eq. 12).

    sigma: standard deviation of the Gaussian in tokens, 0 or more; its kernel has ceil(6 sigma) entries, made odd.
    Above 9999, or inf, every query is the mean of all. At 0 the layer is the plain one.
    """

    sigma: Annotated[
        float | Literal["inf"],
        BeforeValidator(_sigma),
        Field(description="of the queries' blur, in tokens; inf: their mean"),
    ] = "inf"
    scale: ClassVar[float] = 3.0

    def install(self, network: nn.Module, layer: str, context: PassContext) -> None:
        """Set the attention processor."""
        attention: Any = network.get_submodule(layer)
        attention.set_processor(BlurredQueryAttention(self, context))

    def smooth(self, q: Tensor, sides: tuple[int, int]) -> Tensor:
        """The blurred queries of queries (B, heads, N, d) that lie on a grid of these sides."""
        if self.sigma == "inf" or self.sigma > INFINITE:
            return q.mean(dim=2, keepdim=True).expand(q.shape)
        if self.sigma == 0:
            return q
        kernel = math.ceil(6 * self.sigma) // 2 * 2 + 1
        picture = q.transpose(2, 3).unflatten(-1, sides)
        return blur_2d(picture, kernel, self.sigma).flatten(-2).transpose(2, 3)


class BlurredQueryAttention(SelfAttentionProcessor):
    """An attention processor with blurred queries."""

    def __init__(self, perturbation: SmoothedEnergy, context: PassContext) -> None:
        self.perturbation, self.context = perturbation, context

    def attended(self, attn: Attention, x: Tensor, hidden_states: Tensor) -> Tensor:
        """The values under the attention of blurred queries."""
        q, k, v = projections(attn, x)
        q = self.perturbation.smooth(q, token_sides(hidden_states, self.context.sides))
        return merged(torch.nn.functional.scaled_dot_product_attention(q, k, v))


def token_sides(hidden_states: Tensor, state: tuple[int, int]) -> tuple[int, int]:
    """The sides of the grid that a layer's tokens lie on; `state` are the sides of the network's input.

    ValueError: a number of tokens (B, N, C) that no halving of the state has.
    """
    if hidden_states.ndim == 4:
        return int(hidden_states.shape[2]), int(hidden_states.shape[3])
    count, (height, width) = hidden_states.shape[1], state
    while height * width > count:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != count:
        raise ValueError(f"{count} tokens have no place on a state of {state[0]} x {state[1]}; take another layer")
    return height, width
