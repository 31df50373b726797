"""What a perturbation is, and the twin of a network that it is put into; the identity of PAG.

A perturbed network is a twin: a second set of modules over the very same parameter tensors, with other attention
processors. The network that carries the gradient is never touched, so neither a backward pass nor gradient
checkpointing, which runs a forward again inside it, can meet a perturbed layer.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pag_inverse.guidance.attention import SelfAttentionProcessor
from pag_inverse.priors.attention_layers import resolve_layers
from pag_inverse.runtime.streams import stream_seed
from pag_inverse.settings import settings

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention


@dataclass
class PassContext:
    """What a perturbed pass knows of its call: the sides (H, W) of the state, the timestep, a seed for each image."""

    sides: tuple[int, int] = (0, 0)
    t: int = 0
    seeds: tuple[int, ...] = ()

    def enter(self, z: Tensor, t: int, seeds: Sequence[int] | None) -> None:
        """Take the values of a call; without seeds every image has seed 0. ValueError: another number of seeds."""
        if seeds is not None and len(seeds) != len(z):
            raise ValueError(f"{len(z)} images under a guidance with {len(seeds)} seeds; give one for each image")
        self.sides, self.t = (int(z.shape[-2]), int(z.shape[-1])), int(t)
        self.seeds = (0,) * len(z) if seeds is None else tuple(seeds)

    def generators(self, layer: str) -> list[torch.Generator]:
        """A generator for each image, which depends on its seed, the timestep and the layer alone."""
        keys = [stream_seed(seed, f"{self.t}|{layer}", "perturbation") for seed in self.seeds]
        return [torch.Generator().manual_seed(key) for key in keys]


class Perturbation(abc.ABC):
    """What makes eps_hat of eps at the chosen self-attention layers. A perturbation is a frozen dataclass of options.

    >>> from pag_inverse.guidance import make_perturbation
    >>> make_perturbation("random_mask:ratio=0.5").options()
    {'ratio': 0.5}
    """

    scale: ClassVar[float] = 1.0  # s in the publication
    random: ClassVar[bool] = False  # draws random numbers

    def module(self, layer: str) -> str:
        """The name of the first module that differs from the plain network, for a layer by diffusers' name."""
        return layer

    @abc.abstractmethod
    def install(self, network: nn.Module, layer: str, context: PassContext) -> None:
        """Change a layer of a twin. `context` holds the values of each call."""

    def options(self) -> dict[str, Any]:
        """The options by name."""
        return asdict(self) if is_dataclass(self) else {}


@settings
class Identity(Perturbation):
    """The map is the identity: PSA(Q, K, V) = V (Ahn et al., 2024, Eq. 13)."""

    def install(self, network: nn.Module, layer: str, context: PassContext) -> None:
        """Set the attention processor."""
        attention: Any = network.get_submodule(layer)
        attention.set_processor(IdentitySelfAttention())


class IdentitySelfAttention(SelfAttentionProcessor):
    """An attention processor whose attention map is the identity: out = to_out(to_v(x)) (Eq. 13)."""

    def attended(self, attn: Attention, x: Tensor, hidden_states: Tensor) -> Tensor:
        """The values themselves."""
        values: Tensor = attn.to_v(x)
        return values


def twin(network: nn.Module) -> Any:
    """A network with modules of its own and every parameter and buffer shared with `network`."""
    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    return copy.deepcopy(network, shared)


def perturbed_twin(
    network: nn.Module,
    layers: Sequence[str],
    perturbation: Perturbation | None = None,
    context: PassContext | None = None,
) -> Any:
    """A twin of `network` with the named self-attention layers perturbed, by the identity unless another is given."""
    perturbed = twin(network)
    context = PassContext() if context is None else context
    for name in resolve_layers(network, layers):
        (perturbation or Identity()).install(perturbed, name, context)
    return perturbed
