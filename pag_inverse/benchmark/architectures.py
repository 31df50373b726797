"""The published networks, to be measured without their weights."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel

from pag_inverse.priors import LatentPrior, PixelPrior, Prior
from pag_inverse.priors.checkpoints.adm import AdmLayout, unet_config
from pag_inverse.schedule import BETAS
from pag_inverse.settings import load_prior_config


def ffhq_adm() -> UNet2DModel:
    """The ADM of FFHQ at 256 px, 93.6 M parameters, self-attention at 16 px."""
    return _adm(128, 1, attention=(4,))


def imagenet_adm() -> UNet2DModel:
    """The unconditional ADM of ImageNet at 256 px, 552.8 M parameters, self-attention at 32, 16 and 8 px."""
    return _adm(256, 2, attention=(3, 4, 5))


def stable_diffusion_unet() -> UNet2DConditionModel:
    """The U-Net of Stable Diffusion 1.x, 859.5 M parameters."""
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def stable_diffusion_vae() -> AutoencoderKL:
    """The autoencoder of Stable Diffusion 1.x, 83.7 M parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def random_prior(name: str, device: str = "cpu") -> Prior:
    """The networks of a published prior, `ffhq`, `imagenet` or `sd15`, with random weights.

    On a device the weights are always the same. They are drawn there, which on a GPU saves most of the time.
    """
    config = load_prior_config(name)
    betas = BETAS[config.betas.schedule](config.betas.start, config.betas.end)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        if config.family == "stable_diffusion":
            unet, vae, empty = stable_diffusion_unet(), stable_diffusion_vae(), torch.randn(1, 77, 768)
            return LatentPrior(unet, vae, betas, empty=empty, name=name, image_size=config.image_size)
        adm = {"ffhq": ffhq_adm, "imagenet": imagenet_adm}[name]
        return PixelPrior(adm(), betas, name=name, image_size=config.image_size)


def _adm(width: int, blocks: int, attention: tuple[int, ...]) -> UNet2DModel:
    layout = AdmLayout(
        in_channels=3,
        out_channels=6,
        widths=tuple(width * m for m in (1, 1, 2, 2, 4, 4)),
        blocks=blocks,
        attention=tuple(level in attention for level in range(6)),
        middle_attention=True,
        resblock_updown=True,
        scale_shift=True,
    )
    return UNet2DModel(**unet_config(layout))
