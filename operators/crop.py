"""A part of the image: what lies around it is not measured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.base import Operator, Shape
from operators.validation import check_shape, is_whole

__all__ = ["Crop"]


class Crop(Operator):
    """The central part of an image: (B, C, H, W) -> (B, C, h, w), the rest is not measured.

    `Compose(A, Crop(in_shape, size))` lets A act on the true picture inside a larger canvas, which a network needs
    whose sides must divide by something. The margin meets no measurement: C C* is the identity, so that `solve` is
    that of A. With an odd margin the larger part is below or to the right.
    ValueError: a size (h, w) that is larger than the image.

    >>> import torch
    >>> from operators import Crop
    >>> Crop((3, 64, 64), (50, 33)).forward(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 3, 50, 33])
    """

    def __init__(self, in_shape: Shape, size: tuple[int, int], *, project: str = "published") -> None:
        channels, height, width = check_shape(in_shape)
        if len(size) != 2 or not all(is_whole(n) and 1 <= n <= m for n, m in zip(size, (height, width), strict=True)):
            raise ValueError(f"a part of {tuple(size)} pixels; it must lie in the image of ({height}, {width})")
        super().__init__(in_shape, (channels, int(size[0]), int(size[1])), project=project)
        self.top, self.left = (height - self.out_shape[1]) // 2, (width - self.out_shape[2]) // 2

    def _forward(self, x: Tensor) -> Tensor:
        _, height, width = self.out_shape
        return x[..., self.top : self.top + height, self.left : self.left + width]

    def _adjoint(self, y: Tensor) -> Tensor:
        _, height, width = self.in_shape
        right, below = width - self.left - y.shape[-1], height - self.top - y.shape[-2]
        return F.pad(y, (self.left, right, self.top, below))

    def _gram(self) -> Tensor:
        return torch.ones(1, 1, 1, 1)

    def enlarge(self, y: Tensor) -> Tensor:
        """y in its place, 0 around it."""
        self._check(y, self.out_shape, "measurements")
        return self._adjoint(y)
