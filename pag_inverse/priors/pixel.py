"""Priors whose state is the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pag_inverse.priors.base import Draw, Prior
from pag_inverse.priors.networks import network_dtype, run_network
from pag_inverse.schedule import Floats

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class PixelPrior(Prior):
    """A U-Net on images (B, 3, H, W) in [-1, 1], with or without a learned variance (ADM).

    `classes` is how many classes a class-conditional network knows, 0 for an unconditional one. The condition of the
    former is the labels of the images, (B,) or (1,), whole numbers from 0 to classes - 1.

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

    @property
    def classes(self) -> int:
        """The number of classes; 0 for an unconditional network."""
        return int(getattr(self.unet.config, "num_class_embeds", None) or 0)

    def example_condition(self) -> Tensor | None:
        return torch.zeros(1, dtype=torch.long, device=self.device) if self.classes else None

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._check_image_shape(image_shape)
        return tuple(image_shape)

    def decode(self, z: Tensor) -> Tensor:
        return z

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return x

    def _run(self, network: Any, z: Tensor, t: int, condition: Tensor | None) -> Tensor:
        if not self.classes:
            return super()._run(network, z, t, None)
        if condition is None:
            raise ValueError(f"prior {self.name} is class-conditional: it predicts nothing without a class")
        timesteps = torch.full((len(z),), int(t), device=z.device, dtype=torch.long)
        labels = condition.to(z.device).expand(len(z))
        return run_network(lambda x: network(x, timesteps, class_labels=labels).sample, z, network_dtype(self.unet))
