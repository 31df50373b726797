"""Closed forms of (A A* + rho)^-1 where A acts on rows and columns separately: x -> R x C^T."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Separable", "divided"]

NULL = 1e-10  # an eigenvalue below this share of the largest one is 0


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
        """(A A* + rho)^-1 r; where both are 0, the pseudo-inverse."""
        rows, columns = self.rows.to(r), self.columns.to(r)
        largest = self.values.amax(dim=(-2, -1), keepdim=True)
        values = torch.where(self.values > NULL * largest, self.values, 0.0).to(r)
        result: Tensor = rows @ divided(rows.mT @ r @ columns, values + rho) @ columns.mT
        return result


def divided(r: Tensor, by: Tensor) -> Tensor:
    """r / by, 0 where `by` is 0."""
    return torch.where(by > 0, r / torch.where(by > 0, by, 1.0), 0.0)
