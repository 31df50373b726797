"""Closed forms of (A A* + rho)^-1 where A acts on rows and columns separately, and near ones of convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Factors", "Separable", "circulant_inverse", "divided", "is_rank_one", "nearest_lines", "probed_power"]

LinearMap = Callable[[Tensor], Tensor]

NULL = 1e-10  # without damping, an eigenvalue of A A* below this share of the largest one is 0
RANK_ONE = 1e-7  # a matrix whose second singular value is below this share of the first has rank 1; float32 gives 2e-8
# Of rho in a preconditioner. Near the border it errs by more than rho: with 5 instead of 1, conjugate gradients take
# 19 iterations instead of 24 at rho = 0.01 and 37 instead of 50 at 0.0025, and the same at 0.1 and 1 (motion kernels
# of 9 to 61 pixels, tolerance 1e-3).
BORDER = 5.0


@dataclass(frozen=True)
class Factors:
    """x -> R x C^T in every channel, and A A* = gain (R R^T) x (C C^T): channels may be mixed into one.

    R (1 or B, h, H) and C (1 or B, w, W); None is the identity.
    """

    gain: float = 1.0
    rows: Tensor | None = None
    columns: Tensor | None = None

    def after(self, inner: Factors) -> Factors:
        """Those of this map after another one."""
        rows, columns = _product(self.rows, inner.rows), _product(self.columns, inner.columns)
        return Factors(self.gain * inner.gain, rows, columns)

    def separable(self, height: int, width: int) -> Separable:
        """The decomposition, for measurements of `height` x `width` pixels."""
        rows, columns = (
            torch.eye(side, dtype=torch.float64)[None] if matrix is None else matrix
            for matrix, side in ((self.rows, height), (self.columns, width))
        )
        found = Separable.of(rows, columns)
        return Separable(found.rows, found.columns, self.gain * found.values)


def _product(outer: Tensor | None, inner: Tensor | None) -> Tensor | None:
    if outer is None or inner is None:
        return inner if outer is None else outer
    return outer.double() @ inner.double()


@dataclass(frozen=True)
class Separable:
    """The eigendecomposition of A A* = (R R^T) x (C C^T), in float64: for all images, or one for each.

    `rows` and `columns` hold the eigenvectors (1 or B, 1, n, n), `values` their products (1 or B, 1, h, w).
    """

    rows: Tensor
    columns: Tensor
    values: Tensor

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor) -> Separable:
        """Of the matrices R (B, h, H) and C (B, w, W)."""
        row_vectors, row_values, _ = torch.linalg.svd(rows.double(), full_matrices=False)
        column_vectors, column_values, _ = torch.linalg.svd(columns.double(), full_matrices=False)
        values = row_values.square()[:, :, None] * column_values.square()[:, None, :]
        return cls(row_vectors[:, None], column_vectors[:, None], values[:, None])

    def solve(self, r: Tensor, rho: Tensor) -> Tensor:
        """(A A* + rho)^-1 r; where rho is 0, the pseudo-inverse."""
        rows, columns, values = self.rows.to(r), self.columns.to(r), self.values.to(r)
        null = NULL * values.amax(dim=(-2, -1), keepdim=True)
        values = torch.where((rho > 0) | (values > null), values, 0.0)
        result: Tensor = rows @ divided(rows.mT @ r @ columns, values + rho) @ columns.mT
        return result


def divided(r: Tensor, by: Tensor) -> Tensor:
    """r / by, 0 where `by` is 0."""
    return torch.where(by > 0, r / torch.where(by > 0, by, 1.0), 0.0)


def is_rank_one(matrices: Tensor) -> Tensor:
    """Of each matrix (B, m, n) whether it is a column times a row."""
    values = torch.linalg.svdvals(matrices)
    return (values[:, 1:] <= RANK_ONE * values[:, :1]).all(dim=1)


def nearest_lines(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Of each matrix (B, m, n) the column (B, m) and the row (B, n) whose product is nearest to it."""
    columns, values, rows = torch.linalg.svd(matrices, full_matrices=False)
    root = values[:, :1].sqrt()
    return columns[..., 0] * root, rows[:, 0] * root


def circulant_inverse(power: Tensor, rho: Tensor, size: tuple[int, int]) -> LinearMap:
    """u -> (A A* + BORDER rho)^-1 u for the spectrum of A A*, (1 or B, 1 or C, H, W / 2 + 1): positive, near the
    inverse where A A* is a convolution but for the image's border."""
    power = power + 1e-8 * power.amax(dim=(-2, -1), keepdim=True) + BORDER * rho
    return lambda u: torch.fft.irfft2(torch.fft.rfft2(u) / power, s=size)


def probed_power(gram: LinearMap, like: Tensor) -> Tensor:
    """The spectrum of A A* as a convolution: of its response to the pixel in the middle, for tensors like `like`."""
    height, width = like.shape[-2:]
    pixel = torch.zeros_like(like)
    pixel[..., height // 2, width // 2] = 1
    response = gram(pixel).roll((-(height // 2), -(width // 2)), dims=(-2, -1))
    return torch.fft.rfft2(response).real.clamp(min=0)
