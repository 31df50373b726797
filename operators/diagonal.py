"""Weights: every entry of the image is multiplied by its own."""

from __future__ import annotations

from torch import Tensor

from operators.base import Array, Operator, Shape
from operators.spectral import divided
from operators.validation import as_tensor

__all__ = ["Diagonal"]


class Diagonal(Operator):
    """Every entry is multiplied by a weight: y = w x. A lens that darkens corners does so, and so does whitening.

    `weights` is (H, W), (C, H, W) or (B, C, H, W), where C may be 1. What has the weight 0 is not measured. `project`
    with "published" has T y = y / w, 0 where w is 0. ValueError: weights that are not finite or do not fit in_shape.
    """

    per_image = ("weights",)

    def __init__(self, weights: Array, in_shape: Shape, *, project: str = "published") -> None:
        super().__init__(in_shape, in_shape, project=project)
        values = as_tensor(weights, "weights")
        channels, height, width = self.in_shape
        shape = (1,) * (4 - values.ndim) + tuple(values.shape)
        if len(shape) != 4 or shape[1] not in (1, channels) or shape[2:] != (height, width):
            allowed = f"({height}, {width}), ({channels}, {height}, {width}) or (B, {channels}, {height}, {width})"
            raise ValueError(f"weights of shape {tuple(values.shape)}; they are {allowed}")
        self.weights = values.reshape(shape)

    def observation_mask(self, y: Tensor) -> Tensor:
        """1 where the weight is not 0: a tensor like y."""
        self._check(y, self.out_shape, "measurements")
        return (self.weights != 0).to(y).expand_as(y)

    def _forward(self, x: Tensor) -> Tensor:
        return self.weights.to(x) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.weights.to(y) * y

    def _entries(self) -> Tensor:
        return self.weights

    def _published_glue(self, y: Tensor) -> Tensor:
        weights = self.weights.to(y)
        return divided(y * weights, weights.square())
