"""A user's own linear function as an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators.base import Operator, Shape
from operators.convolution import LinearMap, apply_linear
from operators.validation import check_shape

__all__ = ["LinearOperator"]

TOLERANCE = 1e-3  # of the checks, which are made in float32


class LinearOperator(Operator):
    """An operator of a function that is linear: y = forward(x), (B, *in_shape) -> (B, *out_shape).

    `forward` takes a batch of any size, treats each image alone and alike, and keeps dtype and device. `adjoint` is its
    adjoint, (B, *out_shape) -> (B, *in_shape); where it is not given, autograd finds it. `out_shape` is tried out where
    it is not given. Both functions are checked once, on `device`, with random images. `to` moves a `forward` that is a
    torch.nn.Module; a function moves its own arrays.
    ValueError: a function that fails, gives another shape, is not linear, mixes images or has no gradient; an adjoint
    that is none.
    """

    def __init__(
        self,
        forward: LinearMap,
        in_shape: Shape,
        out_shape: Shape | None = None,
        adjoint: LinearMap | None = None,
        *,
        project: str = "published",
        device: str | torch.device = "cpu",
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, *check_shape(in_shape), generator=generator).to(device)
        y = _called("forward", forward, x)
        if out_shape is None:
            out_shape = tuple(y.shape[1:])  # type: ignore[assignment]
        super().__init__(in_shape, check_shape(out_shape), project=project)  # type: ignore[arg-type]
        self.forward_map, self.adjoint_map = forward, adjoint
        self._check_linear(x, y)
        self._check_adjoint(x, y, torch.randn(y.shape, generator=generator).to(device))

    @classmethod
    def from_function(
        cls, forward: LinearMap, in_shape: Shape, out_shape: Shape | None = None, adjoint: LinearMap | None = None
    ) -> LinearOperator:
        """The operator of a function; see the class.

        >>> LinearOperator.from_function(lambda x: x[..., ::2, ::2], (3, 64, 64)).out_shape
        (3, 32, 32)
        """
        return cls(forward, in_shape, out_shape, adjoint)

    def _forward(self, x: Tensor) -> Tensor:
        if self.adjoint_map is None:
            return self.forward_map(x)
        return apply_linear(x, self.forward_map, self.adjoint_map)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.adjoint_map is None:
            return super()._adjoint(y)
        return apply_linear(y, self.adjoint_map, self.forward_map)

    def _check_linear(self, x: Tensor, y: Tensor) -> None:
        if y.shape != (2, *self.out_shape):
            raise ValueError(f"forward gives {tuple(y.shape)} for 2 images; it must give (2, *{self.out_shape})")
        mixed = _called("forward", self.forward_map, x[:1] - 2 * x[1:])
        if not _near(mixed, y[:1] - 2 * y[1:]):
            raise ValueError(
                "forward is not linear: forward(a - 2 b) is not forward(a) - 2 forward(b), or images of a batch are "
                "mixed; write an Operator with linear = False for a map that is not linear"
            )

    def _check_adjoint(self, x: Tensor, y: Tensor, u: Tensor) -> None:
        if self.adjoint_map is None:
            try:
                v = self._adjoint(u)
            except RuntimeError as error:
                raise ValueError(f"forward has no gradient ({_line(error)}); give its adjoint") from error
        else:
            v = _called("adjoint", self.adjoint_map, u)
        if v.shape != x.shape:
            raise ValueError(f"adjoint gives {tuple(v.shape)} for 2 measurements; it must give (2, *{self.in_shape})")
        left, right = ((a * b).flatten(1).sum(dim=1) for a, b in ((y, u), (x, v)))
        scale = y.flatten(1).norm(dim=1) * u.flatten(1).norm(dim=1)
        if not bool(((left - right).abs() <= TOLERANCE * scale).all()):
            raise ValueError(
                f"adjoint is not that of forward: <A x, u> is {float(left[0]):g}, <x, A* u> is {float(right[0]):g}; "
                "leave it out, and autograd finds it"
            )


def _called(name: str, function: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """What a user's function gives for a batch; a ValueError where it fails or gives no such batch."""
    try:
        with torch.no_grad():
            y = function(x.clone())
    except Exception as error:
        raise ValueError(f"{name} fails for a torch tensor {tuple(x.shape)}, float32: {_line(error)}") from error
    if not isinstance(y, Tensor) or y.ndim != 4 or len(y) != len(x) or y.dtype != x.dtype or y.device != x.device:
        found = f"{y.dtype} {tuple(y.shape)} on {y.device}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise ValueError(f"{name} gives {found}; it must give a tensor ({len(x)}, C, H, W) of float32 on {x.device}")
    return y


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= TOLERANCE * expected.norm())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
