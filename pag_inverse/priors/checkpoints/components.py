"""From the networks of a diffusion model, wherever they come from, to a prior; another kind of model is an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pag_inverse.priors.base import Prior
from pag_inverse.priors.checkpoints.text_encoder import TextEncoder
from pag_inverse.priors.latent import LatentPrior
from pag_inverse.priors.pixel import PixelPrior
from pag_inverse.priors.quantised import QuantisedLatentPrior
from pag_inverse.schedule import Floats

# Settings of U-Nets that mean an input, or a meaning of the input, that a prior does not have.
_OTHER_INPUTS = {
    "class_embed_type": "a class-conditional network",
    "num_class_embeds": "a class-conditional network",
    "addition_embed_type": "Stable Diffusion XL or another model with more conditions than a prompt",
    "encoder_hid_dim_type": "a network with another condition than CLIP's text",
    "time_cond_proj_dim": "a distilled network that takes the guidance scale as input",
    "center_input_sample": "a network for images in [0, 1]",
}
_OTHER_LATENTS = ("shift_factor", "latents_mean", "latents_std")


@dataclass(frozen=True)
class Components:
    """The parts of a model; `where` names it in messages.

    `vae` None is a model of pixels; `text` is there where the U-Net takes a prompt; `image_size` in pixels, None to
    take it from the U-Net's settings.
    """

    where: str
    unet: Any
    vae: Any
    betas: Floats
    prediction: str
    text: TextEncoder | None = None
    image_size: int | None = None

    def prior(self) -> Prior:
        """The prior that runs them; ValueError for a kind of model that is not supported."""
        _check_unet(self.unet, self.where)
        if self.vae is None:
            if takes_prompt(self.unet):
                raise ValueError(f"{self.where}: a U-Net that takes a prompt needs an autoencoder and a text encoder")
            _check_channels(self.unet, 3, "an image", self.where)
            size = self.image_size or _side(self.unet.config.sample_size, 256)
            return PixelPrior(self.unet, self.betas, image_size=size, prediction=self.prediction)
        _check_autoencoder(self.vae, self.where)
        _check_channels(self.unet, self.vae.config.latent_channels, "a latent of its autoencoder", self.where)
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        size = self.image_size or _side(self.unet.config.sample_size, 64) * factor
        kind = QuantisedLatentPrior if is_a(self.vae, "VQModel") else LatentPrior
        prior = kind(self.unet, self.vae, self.betas, empty=self._empty(), image_size=size, prediction=self.prediction)
        prior.text = self.text
        return prior

    def _empty(self) -> Tensor | None:
        """The embedding of the empty prompt, for a U-Net that takes one."""
        if not takes_prompt(self.unet):
            return None
        if self.text is None:
            raise ValueError(
                f"{self.where}: the U-Net takes a prompt but there is no text encoder; give the whole pipeline or "
                "folder, or build LatentPrior(unet, vae, betas, empty=...) with the embedding of the empty prompt"
            )
        empty, width = self.text.empty(), self.unet.config.cross_attention_dim
        if empty.shape[-1] != width:
            raise ValueError(f"{self.where}: the text encoder is {empty.shape[-1]} wide, the U-Net takes {width}")
        return empty


def takes_prompt(unet: Any) -> bool:
    """Whether a U-Net has cross-attention to a prompt."""
    return is_a(unet, "UNet2DConditionModel")


def is_a(value: object, *names: str) -> bool:
    """Whether the class of a value, or one it derives from, has one of these names; nothing is imported for it."""
    return any(kind.__name__ in names for kind in type(value).__mro__)


def _check_unet(unet: Any, where: str) -> None:
    config = unet.config
    for name, meaning in _OTHER_INPUTS.items():
        if config.get(name):
            raise ValueError(f"{where}: {name} is {config[name]}: {meaning} is not supported")
    time = config.get("time_embedding_type", "positional")
    if time != "positional":
        raise ValueError(f"{where}: time_embedding_type is {time}; supported are timesteps 0 to 999 (positional)")


def _check_channels(unet: Any, expected: int, of: str, where: str) -> None:
    taken, given = unet.config.in_channels, unet.config.out_channels
    if taken != expected:
        raise ValueError(f"{where}: the U-Net takes {taken} channels; {of} has {expected}")
    if given not in (taken, 2 * taken):
        raise ValueError(f"{where}: the U-Net gives {given} channels; supported are {taken} or {2 * taken}")


def _check_autoencoder(vae: Any, where: str) -> None:
    config = vae.config
    if (config.in_channels, config.out_channels) != (3, 3):
        raise ValueError(f"{where}: an autoencoder of {config.in_channels} channels; 3 are needed")
    for name in _OTHER_LATENTS:
        if config.get(name):
            raise ValueError(f"{where}: {name} of the autoencoder is {config[name]}; latents are scaled only")


def _side(sample_size: object, default: int) -> int:
    """The side of a U-Net's samples: a number, two of them, or None."""
    if isinstance(sample_size, Sequence):
        return int(max(sample_size))
    return int(sample_size) if isinstance(sample_size, (int, float)) and sample_size else default
