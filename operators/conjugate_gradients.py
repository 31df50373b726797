"""Conjugate gradients, each image of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["conjugate_gradients"]

LinearMap = Callable[[Tensor], Tensor]


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

    Hestenes and Stiefel, 1952. An image is left as it is once ||b - M u|| <= tolerance ||b||, or after `iterations`:
    its result does not depend on the others. So is one whose M turns out not to be positive definite. `start` is the first u, by default 0. `precondition` is about M^-1, and
    symmetric and positive definite too.
    """
    u = torch.zeros_like(b) if start is None else start.clone()
    r = b - apply(u) if start is not None else b.clone()
    limit = tolerance * _dot(b, b).sqrt()
    z = precondition(r) if precondition else r
    p, rz = z, _dot(r, z)
    for _ in range(iterations):
        active = _dot(r, r).sqrt() > limit
        if not bool(active.any()):
            break
        q = apply(p)
        curvature = _dot(p, q)
        active &= curvature > 0
        alpha = torch.where(active, rz / curvature.clamp(min=_tiny(b)), 0.0)
        u, r = u + alpha * p, r - alpha * q
        z = precondition(r) if precondition else r
        rz_next = _dot(r, z)
        p = z + torch.where(active, rz_next / rz.clamp(min=_tiny(b)), 0.0) * p
        rz = rz_next
    return u


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each image, (B, 1, 1, 1)."""
    return (a * b).flatten(1).sum(dim=1)[:, None, None, None]


def _tiny(x: Tensor) -> float:
    return float(torch.finfo(x.dtype).tiny)
