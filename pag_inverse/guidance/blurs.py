"""Gaussian blurs of small arrays as matrices, so that a kernel may be wider than what it blurs."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_KERNEL = 100_001  # entries


def gaussian(kernel: int, std: float) -> Tensor:
    """The weights exp(-i^2 / (2 std^2)) of a kernel of odd size, which sum to 1; std 0 leaves the middle one alone."""
    place = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    weights = torch.exp(-(place**2) / (2 * std**2)) if std > 0 else (place == 0).double()
    return weights / weights.sum()


def blur_matrix(n: int, kernel: int, std: float) -> Tensor:
    """The (n, n) matrix of a blur by a Gaussian with reflection at the edges (d c b | a b c d | c b a), float64."""
    weights, period = gaussian(kernel, std), max(1, 2 * (n - 1))
    place = (torch.arange(n)[:, None] + torch.arange(kernel) - kernel // 2) % period
    place = torch.where(place < n, place, period - place)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, place, weights.expand(n, -1))


def blur_2d(x: Tensor, kernel: int, std: float) -> Tensor:
    """x (..., H, W) blurred by a Gaussian along both sides, with reflection at the edges."""
    height, width = (blur_matrix(side, kernel, std).to(x) for side in x.shape[-2:])
    return height @ x @ width.T
