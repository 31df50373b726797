"""Priors whose state is the latent of an autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from pag_inverse.priors.base import Draw, Prior
from pag_inverse.priors.networks import network_dtype, own_view, run_network
from pag_inverse.schedule import Floats

if TYPE_CHECKING:
    from pag_inverse.priors.checkpoints.text_encoder import TextEncoder


class LatentPrior(Prior):
    """A U-Net on the scaled latents of an AutoencoderKL: Stable Diffusion, or an unconditional one.

    `empty` is the embedding (1, L, D) of the empty prompt, which stands for "no condition"; None for a network
    that takes no prompt.

    >>> import torch
    >>> from pag_inverse import LatentPrior, load_prior
    >>> prior = load_prior("latent")
    >>> isinstance(prior, LatentPrior), prior.state_shape((3, 256, 256))
    (True, (8, 64, 64))
    >>> prior.encode(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 8, 16, 16])
    """

    NETWORKS: ClassVar[tuple[str, ...]] = ("unet", "vae")

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
        self.vae = own_view(vae)
        self.empty = empty
        self.text: TextEncoder | None = None  # for prompts that are not empty, where it came with the networks

    def _further(self) -> str:
        if self.empty is None:
            return ""
        found = self.empty.float()
        # Machines differ in the last digits of what a text encoder gives.
        return " ".join(f"{float(number):.3g}" for number in (found.mean(), found.std(), found.abs().amax()))

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._check_image_shape(image_shape)
        _, h, w = image_shape
        return (self.unet.config.in_channels, h // self.factor, w // self.factor)

    def decode(self, z: Tensor) -> Tensor:
        """D(z / scaling_factor)."""
        z = z / self.vae.config.scaling_factor
        decode = self._call("decode", self.vae.decode)
        return run_network(lambda latent: decode(latent).sample, z, network_dtype(self.vae))

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """scaling_factor * E(x): the posterior's mean, or with `draw` a sample of it."""
        encode = self._call("encode", self.vae.encode)
        moments = run_network(lambda image: encode(image).latent_dist.parameters, x, network_dtype(self.vae))
        z, log_variance = moments.chunk(2, dim=1)
        if draw is not None:
            std = torch.exp(0.5 * log_variance.clamp(-30, 20))  # the range that AutoencoderKL was trained with
            z = z + std * draw(tuple(z.shape)).to(z)
        return z * self.vae.config.scaling_factor

    def _run(self, network: Any, z: Tensor, t: int, condition: Tensor | None) -> Tensor:
        if self.empty is None:
            if condition is not None:
                raise ValueError(f"prior {self.name} takes no prompt")
            return super()._run(network, z, t, None)
        context = self.empty if condition is None else condition
        timesteps = torch.full((len(z),), int(t), device=z.device, dtype=torch.long)
        dtype = network_dtype(self.unet)
        context = context.to(z.device, dtype).expand(len(z), -1, -1)
        return run_network(lambda x: network(x, timesteps, encoder_hidden_states=context).sample, z, dtype)
