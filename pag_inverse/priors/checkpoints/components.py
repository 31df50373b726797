"""From the networks of a diffusion model, wherever they come from, to a prior; another kind of model is an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from operators.validation import check_number
from pag_inverse.priors.base import Prior
from pag_inverse.priors.checkpoints.construction import check_kind
from pag_inverse.priors.checkpoints.picture_side import largest_side
from pag_inverse.priors.checkpoints.text_encoder import TextEncoder
from pag_inverse.priors.latent import LatentPrior
from pag_inverse.priors.pixel import PixelPrior
from pag_inverse.priors.quantised import QuantisedLatentPrior
from pag_inverse.schedule import Floats


@dataclass(frozen=True)
class Components:
    """The parts of a model; `where` names it in messages.

    `vae` None is a model of pixels; `text` is there where the U-Net takes a prompt; `image_size` in pixels, None to
    take it from the U-Net's settings. A U-Net that needs a class label is an error unless `class_conditional`.
    """

    where: str
    unet: Any
    vae: Any
    betas: Floats
    prediction: str
    text: TextEncoder | None = None
    image_size: int | None = None
    class_conditional: bool = False

    def prior(self) -> Prior:
        """The prior that runs them; ValueError for a kind of model that is not supported."""
        labels = ("num_class_embeds",) if self.class_conditional else ()
        check_kind({name: value for name, value in self.unet.config.items() if name not in labels}, self.where)
        if self.vae is None:
            if takes_prompt(self.unet):
                raise ValueError(f"{self.where}: a U-Net that takes a prompt needs an autoencoder and a text encoder")
            _check_channels(self.unet, 3, "an image", self.where)
            size = self.image_size or self._side(256)
            return PixelPrior(self.unet, self.betas, image_size=size, prediction=self.prediction)
        _check_autoencoder(self.vae, self.where)
        channels = self.vae.config.get("vq_embed_dim") or self.vae.config.latent_channels
        _check_channels(self.unet, channels, "a latent of its autoencoder", self.where)
        size = self.image_size or self._side(64) * 2 ** (len(self.vae.config.block_out_channels) - 1)
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
        if {empty.shape[-1]} != set(width if isinstance(width, (list, tuple)) else [width]):
            raise ValueError(f"{self.where}: the text encoder is {empty.shape[-1]} wide, the U-Net takes {width}")
        return empty

    def _side(self, default: int) -> int:
        config = self.unet.config
        return largest_side(self.where, config.sample_size, default, 2 ** (len(config.block_out_channels) - 1))


def takes_prompt(unet: Any) -> bool:
    """Whether a U-Net has cross-attention to a prompt."""
    return is_a(unet, "UNet2DConditionModel")


def is_a(value: object, *names: str) -> bool:
    """Whether the class of a value, or one it derives from, has one of these names; nothing is imported for it."""
    return any(kind.__name__ in names for kind in type(value).__mro__)


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
    check_kind(config, where)
    check_number(f"{where}: scaling_factor of the autoencoder", config.scaling_factor, minimum=1e-6)
