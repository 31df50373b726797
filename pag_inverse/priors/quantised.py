"""Priors on the latents of an autoencoder with a codebook (VQ), as in unconditional latent diffusion."""

from __future__ import annotations

from torch import Tensor

from pag_inverse.priors.base import Draw
from pag_inverse.priors.latent import LatentPrior
from pag_inverse.priors.networks import network_dtype, run_network


class QuantisedLatentPrior(LatentPrior):
    """A U-Net on the scaled latents of a VQModel, taken before the quantisation (Rombach et al., 2022, section 3.1).

    Decoding rounds to the codebook first; its gradient passes straight through: that of the decoder at the codebook's
    entry stands for the latent's own.
    """

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """scaling_factor * E(x); such an encoder has no posterior, so `draw` is not used."""
        encode = self._call("encode", self.vae.encode)
        z = run_network(lambda image: encode(image).latents, x, network_dtype(self.vae))
        return z * self.vae.config.scaling_factor
