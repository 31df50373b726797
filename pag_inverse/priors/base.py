"""What solvers ask of a prior."""

from __future__ import annotations

import abc
import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from pag_inverse.priors.attention_layers import AttentionLayer, resolve_layers, self_attention_layers
from pag_inverse.priors.networks import network_dtype, own_settings, own_view, run_network
from pag_inverse.schedule import Floats, T
from pag_inverse.settings import PREDICTIONS, check_choice

Draw = Callable[[tuple[int, ...]], Tensor]
SMALLEST_CANVAS = 64  # pixels
Self = TypeVar("Self", bound="Prior")


@dataclass(frozen=True)
class Prediction:
    """eps of shape (B, *state), and f in [0, 1] of a learned variance (same shape) or None."""

    eps: Tensor
    variance_fraction: Tensor | None


class Prior(abc.ABC):
    """A pre-trained diffusion model on a state z: the image itself, or its latent.

    `betas` are the 1000 of its training, `multiple` what the sides of an image must divide by, `prediction` what
    the network was trained to predict: `epsilon`, or `v_prediction`, which is turned into eps here. A prior works
    on a view of the network it is given: the caller's network is not changed. It keeps no state between calls, so
    that several threads can use it at once.

    >>> import torch
    >>> from pag_inverse import load_prior
    >>> prior = load_prior("pixel")
    >>> prior.predict(torch.zeros(1, 3, 64, 64), 500).eps.shape
    torch.Size([1, 3, 64, 64])
    >>> prior.resolve_layers(["middle_block.1"])
    ('mid_block.attentions.0',)
    """

    NETWORKS: ClassVar[tuple[str, ...]] = ("unet",)  # the attributes that hold networks
    prediction = "epsilon"
    multiple = 1

    def __init__(
        self, unet: Any, betas: Floats, *, name: str, multiple: int, image_size: int, prediction: str = "epsilon"
    ) -> None:
        self.unet = own_view(unet)
        self.betas, self.name, self.multiple, self.image_size = betas, name, multiple, image_size
        self.prediction = check_choice("prediction", prediction, PREDICTIONS)
        self.source: Path | None = None  # where it was loaded from
        self.dataset: str | None = None  # whose rows of the tables go with it
        self.compiled = False  # whether networks run through torch.compile
        self._compilations: dict[str, Callable[..., Any]] = {}

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compilations": {}}  # a copy compiles networks of its own

    def networks(self) -> list[Any]:
        """The networks it runs."""
        return [getattr(self, name) for name in self.NETWORKS]

    def to(self: Self, device: torch.device | str) -> Self:
        """This prior on another device: itself where it is there already, else a copy of its weights."""
        if torch.device(device) == self.device:
            return self
        moved = copy.copy(self)
        with torch.inference_mode(False):  # tensors made there could not take part in a gradient
            for name in self.NETWORKS:
                network = own_view(getattr(self, name))
                torch.nn.Module.to(network, device)
                setattr(moved, name, network)
        return moved

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides what it computes, the same wherever it was read from.

        These are its betas, the tensors and the settings of its networks, and what a subclass adds with `_further`.
        """
        digest = hashlib.sha256(np.asarray(self.betas, dtype=np.float64).tobytes())
        for network in self.networks():
            digest.update(json.dumps(own_settings(network), sort_keys=True, default=str).encode())
            for tensor in network.state_dict().values():
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digest.update(self._further().encode())
        return digest.hexdigest()

    def _further(self) -> str:
        """What decides what the prior computes, beside its betas and networks."""
        return ""

    @abc.abstractmethod
    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape (C, H, W) of the state of an image (3, H, W); ValueError where the prior cannot take it."""

    def canvas_shape(self, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape (C, H', W') of the smallest canvas for an image (C, H, W): itself where the sides fit the prior.

        Otherwise sides are multiples of `multiple`, and at least SMALLEST_CANVAS: networks know no narrower pictures.
        """
        c, h, w = image_shape
        n = self.multiple
        if h % n == 0 and w % n == 0:
            return c, h, w
        height, width = (max(-(-side // n) * n, SMALLEST_CANVAS // n * n) for side in (h, w))
        return c, height, width

    @abc.abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The image (B, 3, H, W) of a state, in [-1, 1] up to overshoot."""

    @abc.abstractmethod
    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """The state of an image; a latent prior returns its posterior's mean, or with `draw` a sample of it."""

    def predict(self, z: Tensor, t: int, condition: Tensor | None = None, *, network: Any = None) -> Prediction:
        """eps_theta(z, t), with a graph where autograd records.

        `condition` None is the empty prompt, or none. `network` runs in place of the prior's own: guidance passes a
        perturbed one over the same weights.
        """
        output = self._run(self._call("unet", self.unet) if network is None else network, z, t, condition)
        channels = self.unet.config.in_channels
        if output.shape[1] == channels:
            return Prediction(self._eps(output, z, t), None)
        predicted, variance = output.split(channels, dim=1)
        return Prediction(self._eps(predicted, z, t), ((variance + 1) / 2).detach())

    def layers(self) -> list[AttentionLayer]:
        """The self-attention layers that can be perturbed."""
        return self_attention_layers(self.unet)

    def resolve_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        """The diffusers names of `names`; ValueError where one holds no self-attention."""
        return resolve_layers(self.unet, names)

    def example_state(self) -> Tensor:
        """The smallest state that the network takes, (1, C, n, n), all zero."""
        side = 2 ** len(self.unet.config.block_out_channels)
        return torch.zeros((1, self.unet.config.in_channels, side, side), device=self.device)

    def example_condition(self) -> Tensor | None:
        """A condition for `example_state`: None where the network runs without one."""
        return None

    def _call(self, name: str, function: Any) -> Any:
        """A network, or a method of one: as it is, or compiled once."""
        if not self.compiled:
            return function
        if name not in self._compilations:
            self._compilations[name] = torch.compile(function)
        return self._compilations[name]

    def _run(self, network: Any, z: Tensor, t: int, condition: Tensor | None) -> Tensor:
        timesteps = torch.full((len(z),), int(t), device=z.device, dtype=torch.long)
        return run_network(lambda x: network(x, timesteps).sample, z, network_dtype(self.unet))

    def _eps(self, predicted: Tensor, z: Tensor, t: int) -> Tensor:
        """eps, from v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans and Ho, 2022) where the network predicts that."""
        if self.prediction == "epsilon":
            return predicted
        abar = float(np.cumprod(1 - np.asarray(self.betas, dtype=np.float64))[min(int(t), T - 1)])  # t may be 1000
        return abar**0.5 * predicted + (1 - abar) ** 0.5 * z

    def _check_image_shape(self, image_shape: tuple[int, ...]) -> None:
        c, h, w = image_shape
        n = self.multiple
        if c != 3 or h % n or w % n or min(h, w) < n:
            remedy = f": crop it to {h // n * n} x {w // n * n}" if c == 3 and min(h, w) >= n else ""
            raise ValueError(
                f"prior {self.name} cannot take an image of {h} x {w} with {c} channels; "
                f"it takes 3 channels and sides that are multiples of {n}{remedy}"
            )
