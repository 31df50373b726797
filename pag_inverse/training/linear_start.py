"""A start for the small autoencoder: nearly linear weights, averages of blocks and gradients of brightness.

From random weights the group norms before each output hide a picture's brightness and contrast, and thousands
of steps go by before anything else is learned. A feature f carried as f, -f beside two large constants passes a
group norm and a SiLU unchanged, since silu(f) - silu(-f) = f and the constants fix the norm's scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CONSTANT = 8.0
GROUPS = 8
BRANCH = 0.1  # what is left of every random weight, to learn from
LUMA_CHROMA = torch.tensor([[0.299, 0.587, 0.114], [0.5, -0.419, -0.081], [-0.169, -0.331, 0.5]])
AVERAGE = torch.full((2, 2), 0.25)
DETAILS = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]], [[1.0, -1.0], [1.0, -1.0]], [[1.0, -1.0], [-1.0, 1.0]]]) / 4
GAINS = (2.0, 6.0, 5.0, 12.0, 12.0, 20.0, 20.0, 20.0)  # luma, two chromas, luma's details of 4 pixels, two of 2 pixels
POSTERIOR_LOG_VARIANCE = -6.0


@torch.no_grad()
def start_linear(vae: AutoencoderKL) -> AutoencoderKL:
    """Set the weights of an autoencoder of three levels and eight latent channels so that it starts nearly linear."""
    if len(vae.config.block_out_channels) != 3 or vae.config.latent_channels != len(GAINS):
        raise ValueError("the linear start is made for three levels and eight latent channels")
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
    colours = [colour[:, None, None] for colour in LUMA_CHROMA]
    fine = [colour * AVERAGE for colour in colours] + [colours[0] * detail for detail in DETAILS]
    _read_blocks(encoder.down_blocks[0], torch.stack(fine))
    _pass(encoder.down_blocks[1].resnets[0].conv_shortcut, len(fine))
    coarse = torch.zeros(channels, len(fine), 2, 2)
    for k, (source, block) in enumerate([(0, AVERAGE), (1, AVERAGE), (2, AVERAGE), *((0, d) for d in DETAILS)]):
        coarse[k, source] = GAINS[k] * block
    for k in (6, 7):  # the mean of the fine details, across and along
        coarse[k, k - 3] = GAINS[k] * AVERAGE
    _read_blocks(encoder.down_blocks[1], coarse)
    _pair(encoder.down_blocks[2].resnets[0].conv_shortcut, channels)
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
    hat = torch.tensor([0.25, 0.5, 0.25])
    for block in decoder.up_blocks[:2]:
        conv = block.upsamplers[0].conv
        conv.weight[:channels] = 0
        conv.bias[:channels] = 0
        for k in range(channels):
            conv.weight[k, k] = hat[:, None] * hat
    _pass(decoder.up_blocks[1].resnets[0].conv_shortcut, channels)
    _pair(decoder.up_blocks[2].resnets[0].conv_shortcut, channels)
    _open_norm(decoder.conv_norm_out, channels)
    decoder.conv_out.weight *= BRANCH
    decoder.conv_out.bias.zero_()
    colours = torch.zeros(3, channels)
    colours[:, :3] = torch.linalg.inv(LUMA_CHROMA)
    _read_pairs(decoder.conv_out, colours)


def _read_blocks(level: Any, kernels: Tensor) -> None:
    """The first outputs of a level's downsampling are `kernels` (outputs, inputs, 2, 2) over blocks of 2 x 2."""
    conv, (outputs, inputs) = level.downsamplers[0].conv, kernels.shape[:2]
    conv.weight[:outputs] = 0
    conv.bias[:outputs] = 0
    conv.weight[:outputs, :inputs, :2, :2] = kernels


def _pass(conv: Any, channels: int, gains: list[float] | None = None) -> None:
    """The first output channels are the input's."""
    conv.weight[:channels] = 0
    conv.bias[:channels] = 0
    for k in range(channels):
        middle = conv.kernel_size[0] // 2
        conv.weight[k, k, middle, middle] = gains[k] if gains else 1.0


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
