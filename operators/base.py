"""What every measurement operator has in common, and the strict reader of its settings."""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["PROJECTIONS", "Operator", "Settings", "Shape"]

Shape = tuple[int, int, int]
Array = NDArray[Any] | Tensor
Op = TypeVar("Op", bound="Operator")

PROJECTIONS = ("published", "adjoint")


class Operator(abc.ABC):
    """The operator A of a measurement y = A(x) + n (Ahn et al., Self-Rectifying Diffusion Sampling with
    Perturbed-Attention Guidance, inverse problems).

    Images x are (B, *in_shape) and measurements y (B, *out_shape), floating point, range [-1, 1]; the shapes
    are (C, H, W). Results have the dtype and the device of the input. `project` picks the map T of the gluing
    term: "published" is what the tables were tuned with, "adjoint" is the textbook's T = A*.
    ValueError: another `project`, images that do not fit the shapes or the number of masks or kernels.

    A subclass writes `_forward`, and `_adjoint` where it can do better than a vector-Jacobian product. It
    keeps its arrays as tensors, and names in `per_image` those with one entry for each image (or one
    for all).
    """

    linear: bool = True
    per_image: ClassVar[tuple[str, ...]] = ()

    def __init__(self, in_shape: Shape, out_shape: Shape, *, project: str = "published") -> None:
        if project not in PROJECTIONS:
            raise ValueError(f"project is {project!r}; it is one of {', '.join(PROJECTIONS)}")
        self.in_shape = check_shape(in_shape)
        self.out_shape = check_shape(out_shape)
        self.gluing = project

    @classmethod
    def from_settings(
        cls: type[Op], in_shape: Shape, settings: Mapping[str, object], rngs: Sequence[np.random.Generator]
    ) -> Op:
        """The operator for a batch of images, with one random generator for each of them."""
        raise NotImplementedError(f"{cls.__name__} has no from_settings: build it from its arrays")

    def forward(self, x: Tensor) -> Tensor:
        """A x: (B, *in_shape) -> (B, *out_shape). ValueError where the shape or the batch does not fit."""
        self._check(x, self.in_shape, "images")
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A* y, where <A x, y> = <x, A* y>: (B, *out_shape) -> (B, *in_shape).

        ValueError where the shape or the batch does not fit, or A is not linear.
        """
        self._check(y, self.out_shape, "measurements")
        if not self.linear:
            raise ValueError(f"{type(self).__name__} is not linear: it has no adjoint")
        return self._adjoint(y)

    def glue(self, y: Tensor) -> Tensor:
        """T y, the measurement carried to image space by the map of the gluing term.

        The published T is the adjoint unless the operator's own docstring says otherwise.
        """
        self._check(y, self.out_shape, "measurements")
        return self.adjoint(y) if self.gluing == "adjoint" else self._published_glue(y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """x - T(A x) + T y, the gluing of PSLD: what was measured from y, the rest from x.

        (B, *in_shape) and (B, *out_shape) -> (B, *in_shape); nothing is clamped.
        """
        return x - self.glue(self.forward(x)) + self.glue(y)

    def observation_mask(self, y: Tensor) -> Tensor:
        """1 where an entry of y was measured, 0 where it was not: a tensor like y."""
        self._check(y, self.out_shape, "measurements")
        return torch.ones_like(y)

    def enlarge(self, y: Tensor) -> Tensor:
        """y as an image of in_shape, to be looked at: pixels repeated, one channel shown in all."""
        self._check(y, self.out_shape, "measurements")
        if self.out_shape[1:] != self.in_shape[1:]:
            y = F.interpolate(y, size=self.in_shape[1:], mode="nearest-exact")
        return y.expand(-1, self.in_shape[0], -1, -1)

    def select(self: Op, indices: Sequence[int] | Tensor) -> Op:
        """The operator for some images of the batch, in the order of `indices`; they may repeat."""
        chosen = copy.copy(self)
        for name in self.per_image:
            value = getattr(self, name)
            if len(value) > 1:
                setattr(chosen, name, value[torch.as_tensor(indices, device=value.device)])
        return chosen

    def to(self: Op, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Op:
        """The operator with its arrays on `device` in `dtype`: spares copying them at every call."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device=device, dtype=dtype))
        return moved

    @abc.abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """A x, shapes already checked."""

    def _adjoint(self, y: Tensor) -> Tensor:
        """A* y, shapes already checked: the vector-Jacobian product, exact for any linear operator."""
        keep_graph = torch.is_grad_enabled() and y.requires_grad
        with torch.enable_grad():
            zeros = y.new_zeros((len(y), *self.in_shape), requires_grad=True)
            (x,) = torch.autograd.grad(self._forward(zeros), zeros, y, create_graph=keep_graph)
        return x

    def _published_glue(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def _check(self, images: Tensor, shape: Shape, what: str) -> None:
        name = type(self).__name__
        if images.ndim != 4 or tuple(images.shape[1:]) != shape:
            takes = f"(B, {', '.join(map(str, shape))})"
            raise ValueError(f"{name}: {what} of shape {tuple(images.shape)}; it takes {takes}")
        if not images.is_floating_point():
            raise ValueError(f"{name}: {what} of {images.dtype}; it takes floating point in [-1, 1]")
        for count in (len(getattr(self, attribute)) for attribute in self.per_image):
            if count not in (1, len(images)):
                raise ValueError(
                    f"{name}: a batch of {len(images)} {what}, but it was built for {count}; "
                    "use select() for some of them"
                )


def check_shape(shape: Sequence[int]) -> Shape:
    """`shape` as (C, H, W) of positive whole numbers; ValueError otherwise."""
    if len(shape) != 3 or not all(is_whole(side) and side > 0 for side in shape):
        raise ValueError(f"shape is {tuple(shape)}; it is (channels, height, width), each at least 1")
    channels, height, width = (int(side) for side in shape)
    return channels, height, width


def as_tensor(array: Array, name: str) -> Tensor:
    """A user's array as a detached float64 tensor; ValueError where an entry is NaN or infinite."""
    tensor = torch.as_tensor(array).detach().to(torch.float64)
    if tensor.numel() == 0 or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} of shape {tuple(tensor.shape)} is empty, or holds NaN or infinite entries")
    return tensor


def is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


class Settings:
    """An operator's settings, read strictly: every key in `required`, none besides but `project`.

    Each getter returns one value or raises a ValueError that states it and what is allowed.
    """

    def __init__(self, owner: str, values: Mapping[str, object], required: Sequence[str]) -> None:
        allowed = (*required, "project")
        unknown = [str(key) for key in values if key not in allowed]
        missing = [key for key in required if key not in values]
        for fault, keys in (("unknown", unknown), ("missing", missing)):
            if keys:
                there = ", ".join(allowed)
                raise ValueError(f"{owner}: {fault} setting {', '.join(keys)}; there are {there}")
        self._owner = owner
        self._values = values

    def null(self, name: str) -> bool:
        return self._values[name] is None

    def whole(self, name: str, minimum: int) -> int:
        value: Any = self._values[name]
        if not is_whole(value) or value < minimum:
            raise self._error(name, f"a whole number, at least {minimum}")
        return int(value)

    def number(self, name: str, minimum: float, maximum: float = math.inf) -> float:
        value = self._values[name]
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
        if not (minimum <= number <= maximum and math.isfinite(number)):
            raise self._error(name, f"a number from {minimum} to {maximum}")
        return number

    def flag(self, name: str) -> bool:
        value = self._values[name]
        if not isinstance(value, bool):
            raise self._error(name, "true or false")
        return value

    def wholes(self, name: str, count: int) -> tuple[int, ...]:
        value = self._values[name]
        if not isinstance(value, (list, tuple)) or len(value) != count or not all(map(is_whole, value)):
            raise self._error(name, f"{count} whole numbers")
        return tuple(int(entry) for entry in value)

    @property
    def project(self) -> str:
        value = self._values.get("project", "published")
        if value not in PROJECTIONS:
            raise self._error("project", f"one of {', '.join(PROJECTIONS)}")
        return str(value)

    def _error(self, name: str, allowed: str) -> ValueError:
        return ValueError(f"{self._owner}: {name} is {self._values[name]!r}; it is {allowed}")
