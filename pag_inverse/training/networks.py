"""The networks of the embedded priors: diffusers' own models, small, convolutional at full resolution, with
self-attention at the coarse levels only, for any picture whose sides divide by 16 (pixel) or 32 (latent)."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DModel

from pag_inverse.training.linear_start import start_linear

DOWNSAMPLING = 4  # of the autoencoder


def pixel_unet() -> UNet2DModel:
    """Self-attention at 1/8 and 1/16 of the side; thin where the picture is large, so that each level costs alike."""
    return _unet(3, (24, 32, 64, 128, 160), attention=(False, False, False, True, True))


def latent_unet(channels: int = 8) -> UNet2DModel:
    """6.1 M parameters; self-attention at 1/2, 1/4 and 1/8 of the latent's side."""
    return _unet(channels, (64, 96, 128, 128), attention=(False, True, True, True), groups=32)


def autoencoder() -> AutoencoderKL:
    """1.5 M parameters; a quarter of the side, 8 channels: a sixth of the numbers of the picture."""
    return start_linear(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(32, 48, 96),
            latent_channels=8,
            norm_num_groups=8,
            mid_block_add_attention=False,
            sample_size=256,
        )
    )


def _unet(channels: int, widths: tuple[int, ...], attention: tuple[bool, ...], groups: int = 8) -> UNet2DModel:
    return UNet2DModel(
        sample_size=256 if channels == 3 else 256 // DOWNSAMPLING,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=groups,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        attention_head_dim=32,
        downsample_type="conv",
        upsample_type="conv",
        resnet_time_scale_shift="scale_shift",
        freq_shift=0,
    )
