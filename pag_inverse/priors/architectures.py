"""The networks of the embedded priors: diffusers' own models, small, convolutional at full resolution, with
self-attention at the coarse levels only, for any picture whose sides divide by 8 (pixel) or 16 (latent)."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DModel

from pag_inverse.priors.linear_start import start_linear

DOWNSAMPLING = 2  # of the autoencoder


def pixel_unet() -> UNet2DModel:
    """4.0 M parameters; self-attention at 1/8 of the side."""
    return _unet(3, (32, 64, 96, 128), attention=(False, False, False, True), resample="resnet")


def latent_unet(channels: int = 4) -> UNet2DModel:
    """5.3 M parameters; self-attention at 1/4 and 1/8 of the latent's side."""
    return _unet(channels, (32, 64, 128, 160), attention=(False, False, True, True), resample="conv")


def autoencoder() -> AutoencoderKL:
    """0.6 M parameters; half the side, 4 channels: a third of the numbers of the picture."""
    return start_linear(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(32, 64),
            latent_channels=4,
            norm_num_groups=8,
            mid_block_add_attention=False,
            sample_size=256,
        )
    )


def _unet(channels: int, widths: tuple[int, ...], attention: tuple[bool, ...], resample: str) -> UNet2DModel:
    return UNet2DModel(
        sample_size=256 if channels == 3 else 256 // DOWNSAMPLING,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        attention_head_dim=32,
        downsample_type=resample,
        upsample_type=resample,
        resnet_time_scale_shift="scale_shift",
        freq_shift=0,
    )
