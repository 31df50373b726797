"""Super-resolution: the image is seen through an antialiased bicubic reduction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.base import Operator, Projection, Shape
from operators.spectral import Factors, LinearMap, Separable
from operators.validation import Count, check_shape, is_whole, settings

__all__ = ["SuperResolution", "SuperResolutionSettings", "bicubic_matrix"]


@settings
class SuperResolutionSettings:
    """`scale`, how many times smaller the measurement is; `project` as in `Operator`."""

    scale: Count
    project: Projection = "published"


class SuperResolution(Operator):
    """Images are seen `scale` times smaller: y = M_h x M_w^T (Ahn et al. 2024, Tables 5 and 7: scale 8).

    M applies the bicubic kernel (a = -0.5) stretched by the scale, the image continued symmetrically, its
    border pixel repeated. (B, C, H, W) -> (B, C, ceil(H / scale), ceil(W / scale)); the adjoint is M_h^T y M_w.
    `project` with "published" has T = nearest-neighbour enlargement: every block of x is shifted by what y lies above
    A x. With "adjoint" it is a gradient step of length 1 on ||A x - y||^2 / 2, about scale^2 times smaller.
    ValueError: a scale that is not a positive whole number, or larger than H or W.
    """

    Settings: ClassVar[type] = SuperResolutionSettings
    stationary = True

    def __init__(self, in_shape: Shape, scale: int, *, project: str = "published") -> None:
        channels, height, width = check_shape(in_shape)
        if not is_whole(scale) or not 1 <= scale <= min(height, width):
            raise ValueError(
                f"scale is {scale!r}; it is a whole number from 1 to {min(height, width)}, the smaller side"
            )
        super().__init__(in_shape, (channels, -(-height // scale), -(-width // scale)), project=project)
        self.scale = int(scale)
        self.rows = torch.from_numpy(bicubic_matrix(height, self.scale))
        self.columns = torch.from_numpy(bicubic_matrix(width, self.scale))

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: SuperResolutionSettings, rngs: Sequence[np.random.Generator]
    ) -> SuperResolution:
        return cls(in_shape, settings.scale, project=settings.project)

    @classmethod
    def image_shape(cls, measured: Shape, settings: SuperResolutionSettings) -> Shape:
        """Sides that are `scale` times longer."""
        channels, height, width = measured
        return channels, settings.scale * height, settings.scale * width

    def _forward(self, x: Tensor) -> Tensor:
        return self.rows.to(x) @ (x @ self.columns.to(x).T)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.rows.to(y).T @ (y @ self.columns.to(y))

    def _solve(self, r: Tensor, rho: Tensor, start: Tensor | None, tolerance: float, iterations: int) -> Tensor:
        return self._separable.solve(r, rho)

    def _preconditioner(self, r: Tensor, rho: Tensor) -> LinearMap:
        return lambda u: self._separable.solve(u, rho)

    def _factors(self) -> Factors:
        return Factors(rows=self.rows[None], columns=self.columns[None])

    @cached_property
    def _separable(self) -> Separable:
        return self._factors().separable(*self.out_shape[1:])

    def enlarge(self, y: Tensor) -> Tensor:
        """y as an image of in_shape, to be looked at: each pixel repeated `scale` times along both sides."""
        self._check(y, self.out_shape, "measurements")
        return self._repeated(y)

    def _repeated(self, y: Tensor) -> Tensor:
        _, height, width = self.in_shape
        repeated = y.repeat_interleave(self.scale, dim=-2).repeat_interleave(self.scale, dim=-1)
        return repeated[..., :height, :width]

    def _published_glue(self, y: Tensor) -> Tensor:
        return self._repeated(y)


def bicubic_matrix(size: int, scale: int) -> NDArray[np.float64]:
    """The matrix (ceil(size / scale), size) that reduces a line of `size` pixels; its rows sum to 1.

    Entry (i, j) is k((j - u_i) / scale) / scale with u_i = (i + 1/2) scale - 1/2 and Keys' cubic k, a = -1/2.
    """
    reach = 2 * scale
    pixels = np.arange(-reach, size + reach)
    centres = (np.arange(-(-size // scale)) + 0.5) * scale - 0.5
    weights = _keys_cubic((pixels[None, :] - centres[:, None]) / scale)
    weights /= weights.sum(axis=1, keepdims=True)
    # A pixel beyond the border is a mirrored one, the border pixel itself included.
    mirrored = np.pad(np.arange(size), reach, mode="symmetric")
    return weights @ np.eye(size)[mirrored]


def _keys_cubic(t: NDArray[np.float64]) -> NDArray[np.float64]:
    t = np.abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1.0
    far = -0.5 * t**3 + 2.5 * t**2 - 4.0 * t + 2.0
    return np.where(t <= 1.0, near, np.where(t < 2.0, far, 0.0))
