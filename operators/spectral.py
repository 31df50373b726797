"""Closed forms of (A A* + rho)^-1 where A acts on rows and columns separately: x -> R x C^T."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Separable", "divided", "is_rank_one", "nearest_lines"]

NULL = 1e-10  # without damping, an eigenvalue of A A* below this share of the largest one is 0
RANK_ONE = 1e-7  # a matrix whose second singular value is below this share of the first has rank 1; float32 gives 2e-8


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
