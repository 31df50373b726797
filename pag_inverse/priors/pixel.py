"""Priors whose state is the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import Floats

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class PixelPrior(Prior):
    """An unconditional U-Net on images (B, 3, H, W) in [-1, 1], with or without a learned variance (ADM).

    >>> from diffusers import UNet2DModel
    >>> from pag_inverse import PixelPrior
    >>> from pag_inverse.schedule import linear_betas
    >>> unet = UNet2DModel(block_out_channels=(32, 64), down_block_types=("DownBlock2D",) * 2,
    ...                    up_block_types=("UpBlock2D",) * 2, norm_num_groups=8)
    >>> PixelPrior(unet, linear_betas()).multiple  # the sides of a picture must divide by it
    2
    """

    def __init__(
        self,
        unet: UNet2DModel,
        betas: Floats,
        *,
        name: str = "pixel",
        image_size: int = 256,
        prediction: str = "epsilon",
    ) -> None:
        multiple = 2 ** (len(unet.config.block_out_channels) - 1)
        super().__init__(unet, betas, name=name, multiple=multiple, image_size=image_size, prediction=prediction)

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._check_image_shape(image_shape)
        return tuple(image_shape)

    def decode(self, z: Tensor) -> Tensor:
        return z

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return x
