"""What solvers ask of a prior."""

from __future__ import annotations

import abc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pag_inverse.guidance.perturbation import AttentionLayer, perturbed_twin, resolve_layers, self_attention_layers
from pag_inverse.guidance.prefix import SharedPrefix
from pag_inverse.priors.precision import frozen, network_dtype, run_network
from pag_inverse.schedule import Floats, T
from pag_inverse.settings.tables import PREDICTIONS
from pag_inverse.settings.reader import check_choice

Draw = Callable[[tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class Prediction:
    """eps of shape (B, *state), and f in [0, 1] of a learned variance (same shape) or None."""

    eps: Tensor
    variance_fraction: Tensor | None


class Prior(abc.ABC):
    """A pre-trained diffusion model on a state z: the image itself, or its latent.

    `betas` are the 1000 of its training, `multiple` what the sides of an image must divide by, `prediction` what the
    network was trained to predict: `epsilon`, or `v_prediction`, which is turned into eps here.
    """

    prediction = "epsilon"

    def __init__(
        self, unet: Any, betas: Floats, *, name: str, multiple: int, image_size: int, prediction: str = "epsilon"
    ) -> None:
        self.unet = frozen(unet)
        self.betas, self.name, self.multiple, self.image_size = betas, name, multiple, image_size
        self.prediction = check_choice("prediction", prediction, PREDICTIONS)
        self._abar = np.cumprod(1 - np.asarray(betas, dtype=np.float64))
        self.source: Path | None = None  # where it was loaded from
        self._twins: dict[tuple[str, ...], tuple[Any, SharedPrefix]] = {}
        self._last: tuple[Any, ...] | None = None  # what the prefixes were recorded for
        self.compiled = False  # whether networks run through torch.compile
        self._compilations: dict[Any, Callable[..., Any]] = {}

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def __getstate__(self) -> dict[str, Any]:
        # A copy makes its own perturbed networks: hooks of copied ones would write into the original's records.
        return {**self.__dict__, "_twins": {}, "_last": None, "_compilations": {}}

    def networks(self) -> list[Any]:
        """The networks it runs."""
        return [self.unet]

    @abc.abstractmethod
    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape (C, H, W) of the state of an image (3, H, W); ValueError where the prior cannot take it."""

    @abc.abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The image (B, 3, H, W) of a state, in [-1, 1] up to overshoot."""

    @abc.abstractmethod
    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """The state of an image; a latent prior returns its posterior's mean, or with `draw` a sample of it."""

    def predict(self, z: Tensor, t: int, condition: Tensor | None = None) -> Prediction:
        """eps_theta(z, t), with a graph where autograd records; `condition` None is the empty prompt, or none."""
        prefixes = [prefix for _, prefix in self._twins.values()]
        for prefix in prefixes:
            prefix.recording = True
        try:
            output = self._run(self.unet, z, t, condition)
        finally:
            for prefix in prefixes:
                prefix.recording = False
        self._last = (weakref.ref(z), z._version, int(t), condition)
        return self._split(output, z, t)

    def prepare(self, layers: Sequence[str]) -> tuple[Any, SharedPrefix]:
        """Make the perturbed networks of `layers` at hand, once: before `predict` already that one shares with it."""
        key = tuple(layers)
        if key not in self._twins:
            if self._compilations:  # made without what this prefix records
                torch.compiler.reset()
                self._compilations.clear()
            self._twins[key] = perturbed_twin(self.unet, key), SharedPrefix(self.unet, key, self._try)
        return self._twins[key]

    def _call(self, function: Any) -> Any:
        """A network, or a method of one: as it is, or compiled once."""
        if not self.compiled:
            return function
        if function not in self._compilations:
            self._compilations[function] = torch.compile(function)
        return self._compilations[function]

    @torch.no_grad()
    def predict_perturbed(self, z: Tensor, t: int, layers: Sequence[str], condition: Tensor | None = None) -> Tensor:
        """eps-hat_theta(z, t), the self-attention maps of `layers` replaced by the identity (Eq. 13); no graph.

        Right after `predict` of the same z, t and condition it starts at the first of `layers`: what comes before is
        the same in both passes.
        """
        whole, prefix = self.prepare(layers)
        reuse = bool(prefix.recorded) and self._is_last(z, t, condition)
        output = self._run(prefix.twin if reuse else whole, z.detach(), t, condition)
        eps = self._split(output, z.detach(), t).eps
        prefix.recorded.clear()
        return eps

    def _is_last(self, z: Tensor, t: int, condition: Tensor | None) -> bool:
        if self._last is None:
            return False
        reference, version, last_t, last_condition = self._last
        return reference() is z and version == z._version and last_t == int(t) and last_condition is condition

    def _try(self, unet: Any) -> Tensor:
        """One pass of a network over the smallest state it takes well."""
        side = 2 ** len(self.unet.config.block_out_channels)
        parameter = next(self.unet.parameters())
        state = parameter.new_zeros((1, self.unet.config.in_channels, side, side))
        compiled, self.compiled = self.compiled, False
        try:
            return self._run(unet, state, 0, None)
        finally:
            self.compiled = compiled

    def layers(self) -> list[AttentionLayer]:
        """The self-attention layers that can be perturbed."""
        return self_attention_layers(self.unet)

    def resolve_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        """The diffusers names of `names`; ValueError where one holds no self-attention."""
        return resolve_layers(self.unet, names)

    def _run(self, unet: Any, z: Tensor, t: int, condition: Tensor | None) -> Tensor:
        timesteps = torch.full((len(z),), int(t), device=z.device, dtype=torch.long)
        return run_network(lambda x: self._call(unet)(x, timesteps).sample, z, network_dtype(unet))

    def _split(self, output: Tensor, z: Tensor, t: int) -> Prediction:
        channels = self.unet.config.in_channels
        if output.shape[1] == channels:
            return Prediction(self._eps(output, z, t), None)
        predicted, variance = output.split(channels, dim=1)
        return Prediction(self._eps(predicted, z, t), ((variance + 1) / 2).detach())

    def _eps(self, predicted: Tensor, z: Tensor, t: int) -> Tensor:
        """eps, from v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans and Ho, 2022) where the network predicts that."""
        if self.prediction == "epsilon":
            return predicted
        abar = float(self._abar[min(int(t), T - 1)])  # PSLD's network sees timesteps up to 1000
        return abar**0.5 * predicted + (1 - abar) ** 0.5 * z

    def _check_image_shape(self, image_shape: tuple[int, ...]) -> None:
        c, h, w = image_shape
        if c != 3 or h % self.multiple or w % self.multiple or min(h, w) < self.multiple:
            raise ValueError(
                f"prior {self.name} cannot take an image of {h} x {w} with {c} channels; "
                f"it takes 3 channels and sides that are multiples of {self.multiple}"
            )
