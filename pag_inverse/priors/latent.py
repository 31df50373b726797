"""Priors whose state is the latent of an autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import Floats


class LatentPrior(Prior):
    """A U-Net on the scaled latents of an AutoencoderKL: Stable Diffusion, or an unconditional one.

    `empty` is the embedding (1, L, D) of the empty prompt, which stands for "no condition"; None for a network
    that takes no prompt.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        betas: Floats,
        *,
        empty: Tensor | None = None,
        name: str = "latent",
        image_size: int = 512,
        prediction: str = "epsilon",
    ) -> None:
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        multiple = self.factor * 2 ** (len(unet.config.block_out_channels) - 1)
        super().__init__(unet, betas, name=name, multiple=multiple, image_size=image_size, prediction=prediction)
        self.vae = vae.eval().requires_grad_(False)
        self.empty = empty

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._check_image_shape(image_shape)
        _, h, w = image_shape
        return (self.unet.config.in_channels, h // self.factor, w // self.factor)

    def decode(self, z: Tensor) -> Tensor:
        """D(z / scaling_factor)."""
        return self.vae.decode(z / self.vae.config.scaling_factor).sample

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """scaling_factor * E(x): the posterior's mean, or with `draw` a sample of it."""
        posterior = self.vae.encode(x).latent_dist
        z = posterior.mean
        if draw is not None:
            z = z + posterior.std * draw(tuple(z.shape)).to(z)
        return z * self.vae.config.scaling_factor

    def _run(self, unet: Any, z: Tensor, t: int, condition: Tensor | None) -> Tensor:
        if self.empty is None:
            if condition is not None:
                raise ValueError(f"prior {self.name} takes no prompt")
            return super()._run(unet, z, t, None)
        context = self.empty if condition is None else condition
        timesteps = torch.full((len(z),), int(t), device=z.device, dtype=torch.long)
        context = context.to(z).expand(len(z), -1, -1)
        return unet(z, timesteps, encoder_hidden_states=context).sample
