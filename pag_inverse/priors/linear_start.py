"""A start for the small autoencoder: nearly linear weights, a block average and one gradient of brightness.

From random weights the group norms before each output hide a picture's brightness and contrast, and thousands
of steps go by before anything else is learned (20 dB after 6,000 crops; from here 32 dB after 3,200). A feature f
carried as f, -f beside two large constants passes a group norm and a SiLU unchanged, since silu(f) - silu(-f) = f
and the constants fix the norm's scale.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

CONSTANT = 8.0
GROUPS = 8
BRANCH = 0.1  # what is left of every random weight, to learn from
LUMA_CHROMA = torch.tensor([[0.299, 0.587, 0.114], [0.5, -0.419, -0.081], [-0.169, -0.331, 0.5]])
GAINS = (2.0, 4.0, 4.0, 6.0)  # of the latent's channels: luma, two chromas, a gradient of luma
POSTERIOR_LOG_VARIANCE = -6.0


@torch.no_grad()
def start_linear(vae: AutoencoderKL) -> AutoencoderKL:
    """Set the weights of an autoencoder of two levels and four latent channels so that it starts nearly linear."""
    if len(vae.config.block_out_channels) != 2 or vae.config.latent_channels != len(GAINS):
        raise ValueError("the linear start is made for two levels and four latent channels")
    for module in vae.modules():
        if hasattr(module, "conv2"):
            module.conv2.weight.mul_(BRANCH)
            module.conv2.bias.zero_()
    _start_encoder(vae)
    _start_decoder(vae)
    return vae


def _start_encoder(vae: AutoencoderKL) -> None:
    encoder, channels = vae.encoder, len(GAINS)
    _pass(encoder.conv_in, 3)
    down = encoder.down_blocks[0].downsamplers[0].conv
    down.weight[:channels] = 0
    down.bias[:channels] = 0
    average = torch.full((2, 2), 0.25)
    gradient = torch.tensor([[2.0, 0.0], [0.0, -2.0]]) / 4
    for k, colour in enumerate([*LUMA_CHROMA, LUMA_CHROMA[0]]):
        down.weight[k, :3, :2, :2] = GAINS[k] * colour[:, None, None] * (average if k < 3 else gradient)
    _pair(encoder.down_blocks[1].resnets[0].conv_shortcut, channels)
    _open_norm(encoder.conv_norm_out, channels)
    encoder.conv_out.weight[channels:] *= BRANCH
    encoder.conv_out.bias.zero_()
    _read_pairs(encoder.conv_out, torch.eye(channels))
    vae.quant_conv.weight.copy_(torch.eye(2 * channels)[..., None, None])
    vae.quant_conv.bias.copy_(torch.tensor([0.0] * channels + [POSTERIOR_LOG_VARIANCE] * channels))


def _start_decoder(vae: AutoencoderKL) -> None:
    decoder, channels = vae.decoder, len(GAINS)
    vae.post_quant_conv.weight.copy_(torch.eye(channels)[..., None, None])
    vae.post_quant_conv.bias.zero_()
    _pass(decoder.conv_in, channels, [1 / gain for gain in GAINS])
    up = decoder.up_blocks[0].upsamplers[0].conv
    up.weight[:channels] = 0
    up.bias[:channels] = 0
    hat = torch.tensor([0.25, 0.5, 0.25])
    for k in range(3):
        up.weight[k, k] = hat[:, None] * hat
    _pair(decoder.up_blocks[1].resnets[0].conv_shortcut, channels)
    _open_norm(decoder.conv_norm_out, channels)
    decoder.conv_out.weight *= BRANCH
    decoder.conv_out.bias.zero_()
    colours = torch.zeros(3, channels)
    colours[:, :3] = torch.linalg.inv(LUMA_CHROMA)
    _read_pairs(decoder.conv_out, colours)


def _pass(conv: Any, channels: int, gains: list[float] | None = None) -> None:
    """The first output channels are the input's."""
    conv.weight[:channels] = 0
    conv.bias[:channels] = 0
    for k in range(channels):
        conv.weight[k, k, 1, 1] = gains[k] if gains else 1.0


def _pair(shortcut: Any, channels: int) -> None:
    """Input channel k goes to group k as f, -f and two constants."""
    width = shortcut.out_channels // GROUPS
    shortcut.weight *= BRANCH
    shortcut.bias.zero_()
    for k in range(channels):
        first = k * width
        shortcut.weight[first : first + 4] = 0
        shortcut.weight[first, k], shortcut.weight[first + 1, k] = 1.0, -1.0
        shortcut.bias[first + 2], shortcut.bias[first + 3] = CONSTANT, -CONSTANT


def _open_norm(norm: Any, channels: int) -> None:
    """Undo the scale that the constants give to their group."""
    width = norm.num_channels // GROUPS
    for k in range(channels):
        norm.weight[k * width : k * width + 4] = CONSTANT * (2 / width) ** 0.5


def _read_pairs(conv: Any, mixture: Tensor) -> None:
    """The first rows of `conv` are `mixture` (rows, channels) of the paired features."""
    rows, channels = mixture.shape
    width = conv.in_channels // GROUPS
    conv.weight[:rows] = 0
    for k in range(channels):
        conv.weight[:rows, k * width, 1, 1] = mixture[:, k]
        conv.weight[:rows, k * width + 1, 1, 1] = -mixture[:, k]
