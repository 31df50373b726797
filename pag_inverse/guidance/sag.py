"""Self-attention guidance: eps_hat is that of a state whose salient parts are blurred (Hong et al., 2023)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from operators.validation import Odd
from pag_inverse.guidance.attention import heads_at_once, projections, tokens
from pag_inverse.guidance.blurs import LARGEST_KERNEL, blur_2d
from pag_inverse.guidance.perturbation import PassContext, Perturbation, twin
from pag_inverse.guidance.seg import token_sides
from pag_inverse.priors.base import Prediction, Prior
from pag_inverse.schedule import T
from pag_inverse.settings import NonNegative, settings


@settings
class AdversarialBlur(Perturbation):
    """eps_hat = eps(x_t'), where x_t' is x_t with x0 blurred where the self-attention map is high.

    a_k = sum over the queries of the map's mean over its heads: what token k receives, 1 on average; with several
    layers their mean. M = 1 where a is above `threshold`, enlarged to the state's sides. x0' = M G(x0) + (1 - M) x0,
    G a Gaussian blur of `kernel` entries with standard deviation `std`, and
    x_t' = sqrt(abar) x0' + sqrt(1 - abar) eps. The network runs twice, and nothing of a pass is shared.
    """

    threshold: Annotated[NonNegative, Field(description="of what a token receives; 1 is the mean")] = 1.0
    kernel: Annotated[Odd, Field(le=LARGEST_KERNEL, description="entries of the Gaussian, odd")] = 9
    std: Annotated[NonNegative, Field(le=1e4, description="standard deviation of the Gaussian, in the state")] = 1.0
    scale: ClassVar[float] = 1.0

    def install(self, network: nn.Module, layer: str, context: PassContext) -> None:
        """The network stays as it is: its input is changed."""

    def degrade(self, z: Tensor, eps: Tensor, abar: float, received: Sequence[Tensor]) -> Tensor:
        """x_t' of a state z (B, C, H, W), its eps, and what the tokens of each layer receive, each (B, h, w)."""
        enlarged = [nn.functional.interpolate(a[:, None].float(), z.shape[-2:]) for a in received]
        mask = torch.stack(enlarged).mean(dim=0) > self.threshold
        x0 = (z - (1 - abar) ** 0.5 * eps) / abar**0.5
        x0 = torch.where(mask, blur_2d(x0, self.kernel, self.std), x0)
        return abar**0.5 * x0 + (1 - abar) ** 0.5 * eps


class BlurredPair:
    """A plain pass that records what the tokens of layers receive, and a pass on the degraded state."""

    def __init__(self, prior: Prior, layers: Sequence[str], perturbation: AdversarialBlur) -> None:
        self.perturbation, self.network = perturbation, twin(prior.unet)
        self._received: dict[str, Tensor] = {}
        self._sides = (0, 0)
        self._recorder: int | None = None  # the thread whose forward pass is recorded
        for layer in layers:
            attention: Any = self.network.get_submodule(layer)
            attention.set_processor(_Recording(self, layer, attention.processor))
        self.plain = torch.compile(self.network) if prior.compiled else self.network

    def __call__(
        self, prior: Prior, z: Tensor, t: int, condition: Tensor | None, seeds: Sequence[int] | None
    ) -> tuple[Prediction, Tensor]:
        """eps with its graph, and eps-hat without one."""
        self._recorder, self._sides = threading.get_ident(), (int(z.shape[-2]), int(z.shape[-1]))
        try:
            prediction = prior.predict(z, t, condition, network=self.plain)
        finally:
            self._recorder = None
        received, self._received = list(self._received.values()), {}
        with torch.no_grad():
            abar = float(np.cumprod(1 - np.asarray(prior.betas, dtype=np.float64))[min(int(t), T - 1)])
            degraded = self.perturbation.degrade(z.detach(), prediction.eps.detach(), abar, received)
            return prediction, prior.predict(degraded, t, condition).eps

    @torch.compiler.disable
    @torch.no_grad()
    def see(self, layer: str, attn: Any, hidden_states: Tensor) -> None:
        """Record what the tokens of a layer receive; a forward that a backward pass runs again is not recorded."""
        if self._recorder != threading.get_ident():
            return
        q, k, _ = projections(attn, tokens(attn, hidden_states))
        sides = token_sides(hidden_states, self._sides)
        self._received[layer] = torch.stack([_received(attn, *image) for image in zip(q, k, strict=True)]).unflatten(
            1, sides
        )


class _Recording:
    """A layer's own processor, whose map is looked at."""

    def __init__(self, pair: BlurredPair, layer: str, processor: Any) -> None:
        self.pair, self.layer, self.processor = pair, layer, processor

    def __call__(self, attn: Any, hidden_states: Tensor, **others: Any) -> Tensor:
        self.pair.see(self.layer, attn, hidden_states)
        output: Tensor = self.processor(attn, hidden_states, **others)
        return output


def _received(attn: Any, q: Tensor, k: Tensor) -> Tensor:
    """The column sums of the map's mean over its heads, (N,), of queries and keys (heads, N, d)."""
    size, total = heads_at_once(q.shape[1]), torch.zeros(q.shape[1], device=q.device)
    for first in range(0, len(q), size):
        part = slice(first, first + size)
        total += attn.get_attention_scores(q[part], k[part]).float().sum(dim=(0, 1))
    return total / len(q)
