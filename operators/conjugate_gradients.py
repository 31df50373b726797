"""Conjugate gradients, each image of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["conjugate_gradients"]

LinearMap = Callable[[Tensor], Tensor]
NULL = 10  # roundings: M shortens what lies in its null space by this share or less


def conjugate_gradients(
    apply: LinearMap,
    b: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    iterations: int = 100,
    precondition: LinearMap | None = None,
) -> Tensor:
    """u with M u = b for images b (B, C, H, W), where `apply` is M: symmetric and positive definite.

    Hestenes and Stiefel, 1952. An image is left as it is once ||b - M u|| <= tolerance ||b||, after `iterations`, or
    where M turns out to be singular or not positive: its result does not depend on the others. `start` is the first
    u, by default 0. `precondition` is about M^-1, and symmetric and positive definite too.
    """
    u = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - apply(start)
    limit = tolerance * _norm(b)
    z = precondition(r) if precondition else r
    p, rz = z, _dot(r, z)
    steepest, stuck = torch.zeros_like(rz), torch.zeros_like(rz, dtype=torch.bool)
    for _ in range(iterations):
        active = (_norm(r) > limit) & ~stuck
        if not bool(active.any()):
            break
        q = apply(p)
        curvature, slope = _dot(p, q), _norm(q) / _norm(p)
        steepest = torch.maximum(steepest, slope)
        # A singular M gives no more of b once p lies in its null space: a step along that p would be endless.
        stuck |= (curvature <= 0) | (slope <= NULL * torch.finfo(b.dtype).eps * steepest)
        active &= ~stuck
        alpha = torch.where(active, rz / curvature, 0.0)
        u, r = u + alpha * p, r - alpha * q
        z = precondition(r) if precondition else r
        rz_next = _dot(r, z)
        p = z + torch.where(active, rz_next / rz, 0.0) * p
        rz = rz_next
    return u


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each image, (B, 1, 1, 1)."""
    return (a * b).flatten(1).sum(dim=1)[:, None, None, None]


def _norm(a: Tensor) -> Tensor:
    return a.flatten(1).norm(dim=1)[:, None, None, None]
