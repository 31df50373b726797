"""Copies of an operator: for some images of its batch, or on another device."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

__all__ = ["Copyable", "no_inference_mode"]

Op = TypeVar("Op", bound="Copyable")


class Copyable:
    """A base class for what holds arrays, some of them with one entry for each image of a batch; see `Operator`."""

    per_image: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        inherited = (name for parent in cls.__bases__ for name in getattr(parent, "per_image", ()))
        cls.per_image = tuple(dict.fromkeys((*inherited, *cls.per_image)))
        if "__init__" in vars(cls):
            cls.__init__ = no_inference_mode()(cls.__init__)  # type: ignore[method-assign]

    def select(self: Op, indices: Sequence[int] | Tensor) -> Op:
        """The operator for some images of the batch, in the order of `indices`; they may repeat.

        `indices` are positions in the batch, or one truth value an image. Operators inside the operator follow.
        ValueError: an index of an image that the operator was not built for.
        """
        chosen = _positions(indices)
        copied = self._copied()
        for name in self.per_image:
            value = getattr(self, name)
            if len(value) > 1:
                setattr(copied, name, _picked(value, chosen))
        for name, value in vars(self).items():
            if isinstance(value, Copyable) and name in vars(copied):
                setattr(copied, name, value.select(chosen))
        return copied

    def to(self: Op, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Op:
        """A copy with its arrays on `device`, and those of real or complex numbers in the precision of `dtype`.

        Without it, arrays are moved at every call. Integer and boolean arrays keep their dtype. Lists, tuples and
        dicts of tensors, networks and operators inside the operator move too.
        ValueError: a `dtype` that is not floating point.
        """
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype is {dtype}; it must be floating point, such as torch.float32")
        result = self._copied()
        with no_inference_mode():
            vars(result).update({name: _moved(value, device, dtype) for name, value in vars(result).items()})
        return result

    def _copied(self: Op) -> Op:
        """A copy without the values of cached properties: they belong to the arrays of the original."""
        copied = copy.copy(self)
        for name in [n for n in vars(copied) if isinstance(getattr(type(self), n, None), cached_property)]:
            del vars(copied)[name]
        return copied

    def _own(self, name: str, b: int) -> Tensor:
        """The entry of a per-image tensor for image b; ValueError where there is no such image."""
        value: Tensor = getattr(self, name)
        return _picked(value, [0 if len(value) == 1 else b])[0]


@contextmanager
def no_inference_mode() -> Iterator[None]:
    """Switch inference mode off: a tensor that is created in it can never be part of a graph."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):  # results have x's own dtype
        if not torch.is_inference_mode_enabled():
            yield
            return
        with torch.inference_mode(False), torch.no_grad():
            yield


def _positions(indices: Sequence[int] | Tensor) -> list[int]:
    chosen = torch.as_tensor(indices)
    listed: list[int] = (chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen).tolist()
    return listed


def _picked(value: Any, indices: Sequence[int]) -> Any:
    """Entries of a tensor, an array, a tuple or a list, in the order of `indices`."""
    faulty = [index for index in indices if not -len(value) <= index < len(value)]
    if faulty:
        raise ValueError(f"image {faulty[0]} of a batch of {len(value)}; it must be from 0 to {len(value) - 1}")
    if isinstance(value, (tuple, list)):
        return type(value)(value[index] for index in indices)
    with no_inference_mode():
        return value[list(indices)]


def _moved(value: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Any:
    """An attribute of an operator on another device, in another precision."""
    if isinstance(value, Tensor):
        # A tensor of inference mode could not be part of a graph; its copy can.
        value = value.clone() if value.is_inference() else value
        return value.to(device=device, dtype=_precision(value.dtype, dtype))
    if isinstance(value, Copyable):
        return value.to(device, dtype)
    if isinstance(value, torch.nn.Module):  # its own `to` would move it in place
        return copy.deepcopy(value).to(device=device, dtype=dtype)
    if type(value) is dict:
        return {key: _moved(entry, device, dtype) for key, entry in value.items()}
    return type(value)(_moved(entry, device, dtype) for entry in value) if type(value) in (list, tuple) else value


def _precision(own: torch.dtype, dtype: torch.dtype | None) -> torch.dtype | None:
    """The dtype of the same kind as `own` with the precision of `dtype`; None leaves it."""
    if dtype is None or own.is_floating_point:
        return dtype
    if own.is_complex:  # torch computes too little with complex numbers of half precision
        return torch.complex128 if dtype == torch.float64 else torch.complex64
    return None
