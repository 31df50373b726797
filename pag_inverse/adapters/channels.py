"""Pictures of three channels, as a physics of other pictures sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import Operator


class AsComplex(Operator):
    """A real image (1, H, W) as a complex one (2, H, W), whose imaginary part is 0."""

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y[:, :1]


class EachChannel(Operator):
    """An operator of grey images for each of three channels: (B, 3, H, W) -> (B, 3 c, h, w) of its (B, c, h, w)."""

    def __init__(self, part: Operator) -> None:
        c, h, w = part.out_shape
        super().__init__((3, *part.in_shape[1:]), (3 * c, h, w))
        self.part, self.linear = part, part.linear

    def observation_mask(self, y: Tensor) -> Tensor:
        """What the operator measures of each channel: a tensor like y."""
        self._check(y, self.out_shape, "measurements")
        return torch.cat([self.part.observation_mask(one) for one in y.chunk(3, dim=1)], dim=1)

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.part._forward(one) for one in x.split(1, dim=1)], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([self.part._adjoint(one) for one in y.chunk(3, dim=1)], dim=1)
