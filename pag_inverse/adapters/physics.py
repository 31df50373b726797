"""A physics of deepinv (Tachella et al., 2025) as an operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from operators.base import Operator, Shape
from operators.convolution import apply_linear
from operators.copies import no_inference_mode
from operators.validation import check_shape

Op = TypeVar("Op", bound="PhysicsOperator")
TOLERANCE = 1e-4  # of the checks, which are made in the physics' own precision


class PhysicsOperator(Operator):
    """The map A of a physics of deepinv, `physics.A`, on images x in [-1, 1].

    deepinv's images are u = (x + 1) / 2. A linear A is used as it is: 2 A u - A 1 = A x for images 1 of ones. Of a map
    that is not linear, y = 2 A((x + 1) / 2). Images are (B, *in_shape), the shape of the physics'. Measurements are
    (B, C, H, W) where the physics' are real tensors of four dimensions, otherwise (B, 1, 1, m): entries in a row, real
    and imaginary parts one after the other, the parts of a list (`TensorList`) too.

    A mask or kernel of the physics may serve every image, or `batch` images, one each. An entry of y counts as measured
    where a linear A gives other values than 0. The adjoint is the physics' own where it is exact, else autograd's.
    Images are computed in the physics' precision, and given back in their own.
    ValueError: a physics that does not take the shape, a map that is called linear and is not, or that has no adjoint.
    """

    per_image = ("rows",)

    def __init__(self, physics: Any, in_shape: Shape, batch: int = 1) -> None:
        from deepinv.physics import LinearPhysics

        self.physics, self.linear = physics, isinstance(physics, LinearPhysics)
        self.in_shape = check_shape(in_shape)
        self.size, example = self._example(batch)  # of the physics: 1 serves every image
        self.template = _template(example)
        super().__init__(in_shape, _packed_shape(example))
        self.rows = tuple(range(self.size))
        self.own_adjoint = False
        self.observed = torch.ones(1, 1, 1, 1)
        if self.linear:
            self._check_linear()

    def to(self: Op, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Op:
        """A copy whose physics is a clone on `device`, in the precision of `dtype`; see `Operator.to`."""
        physics, self_without = self.physics, self._copied()
        self_without.physics = None
        moved = super(PhysicsOperator, self_without).to(device, dtype)
        here = reference(physics)
        same = device in (None, here.device) or torch.device(str(device)) == here.device
        moved.physics = physics if same and dtype in (None, here.dtype) else physics.clone().to(device, dtype)
        return moved

    def observation_mask(self, y: Tensor) -> Tensor:
        """1 where A has entries, 0 where it gives 0 for every image: a tensor like y."""
        self._check(y, self.out_shape, "measurements")
        return self.observed.to(y)[[0 if len(self.observed) == 1 else row for row in self.rows]].expand_as(y)

    def _forward(self, x: Tensor) -> Tensor:
        if not self.linear:
            return 2 * self._by_rows(self._measure, (x + 1) / 2, self.out_shape)
        if not self.own_adjoint:
            return self._apply(x)
        return apply_linear(x, self._apply, self._transpose)

    def _adjoint(self, y: Tensor) -> Tensor:
        return apply_linear(y, self._transpose, self._apply) if self.own_adjoint else super()._adjoint(y)

    def _apply(self, x: Tensor) -> Tensor:
        return self._by_rows(self._measure, x, self.out_shape)

    def _transpose(self, y: Tensor) -> Tensor:
        return self._by_rows(lambda part: self.physics.A_adjoint(self._unpacked(part)), y, self.in_shape)

    def _measure(self, x: Tensor) -> Tensor:
        return packed(self.physics.A(x))

    def _unpacked(self, y: Tensor) -> Any:
        return _unpacked(y, self.template)

    def _by_rows(self, function: Callable[[Tensor], Tensor], images: Tensor, shape: Shape) -> Tensor:
        """A function of a batch, for images that have these rows of the physics' masks or kernels."""
        given = images.to(reference(self.physics))
        if self.size == 1 or self.rows == tuple(range(self.size)):
            return function(given).reshape(len(images), *shape).to(images)
        results = []  # the physics takes whole batches: each image goes to its own place in one of zeros
        for b, row in enumerate(self.rows * len(images) if len(self.rows) == 1 else self.rows):
            place = torch.arange(self.size, device=given.device).reshape(-1, 1, 1, 1) == row
            results.append(function(torch.where(place, given[b], 0.0)).reshape(self.size, *shape)[row])
        return torch.stack(results).to(images)

    def _example(self, batch: int) -> tuple[int, Any]:
        """How many images the physics' masks or kernels are for, and what it gives for them."""
        fault = ""
        for size in (1, batch):
            zeros = torch.zeros(size, *self.in_shape).to(reference(self.physics))
            try:
                with torch.no_grad(), no_inference_mode():
                    y = self.physics.A(zeros)
                if len(packed(y)) == size:
                    return size, y
                fault = f"it gives {len(packed(y))} measurements of {size} images"
            except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
                fault = " ".join(str(error).split())[:160]
        name = type(self.physics).__name__
        raise ValueError(f"{name} does not take {batch} images of {self.in_shape} ({fault}); give the size of its own")

    @torch.no_grad()
    def _check_linear(self) -> None:
        generator, batch = torch.Generator().manual_seed(0), max(2, self.size)
        x, u = (torch.randn(batch, *self.in_shape, generator=generator) for _ in range(2))
        v = torch.randn(batch, *self.out_shape, generator=generator)
        y = self._apply(x.to(reference(self.physics)))
        if float((self._apply((x - 2 * u).to(y)) - y + 2 * self._apply(u.to(y))).norm()) > TOLERANCE * float(y.norm()):
            raise ValueError(f"{type(self.physics).__name__} is called linear, but A(a - 2 b) is not A a - 2 A b")
        self.observed = (y != 0).to(y)[: self.size]
        for own in (True, False):
            self.own_adjoint = own
            try:
                back = self._adjoint(v.to(y))
            except (RuntimeError, NotImplementedError, TypeError, ValueError):
                continue
            if back.shape == x.shape and _are_adjoint(x.to(y), y, v.to(y), back):
                return
        raise ValueError(
            f"{type(self.physics).__name__} has no adjoint: neither its own is exact, nor A differentiable"
        )


def _are_adjoint(x: Tensor, y: Tensor, v: Tensor, back: Tensor) -> bool:
    left, right = ((a * b).flatten(1).sum(dim=1) for a, b in ((y, v), (x, back)))
    scale = y.flatten(1).norm(dim=1) * v.flatten(1).norm(dim=1)
    return bool(((left - right).abs() <= TOLERANCE * scale).all())


def reference(physics: Any) -> Tensor:
    """A tensor of the physics' device and precision."""
    held = [t for t in [*physics.buffers(), *physics.parameters()] if t.is_floating_point()]
    return held[0].detach() if held else torch.zeros(())


def _packed_shape(y: Any) -> Shape:
    shape = tuple(packed(y).shape[1:])
    return shape[0], shape[1], shape[2]


def packed(y: Any) -> Tensor:
    """A measurement as a real tensor of four dimensions."""
    if isinstance(y, Tensor):
        if y.ndim == 4 and not y.is_complex():
            return y
        return (torch.view_as_real(y) if y.is_complex() else y).reshape(len(y), 1, 1, -1)
    return torch.cat([packed(part).reshape(len(part), 1, 1, -1) for part in y], dim=-1)


Template = tuple[tuple[int, ...], bool] | list[Any]  # the shape of an image's measurement, and whether it is complex


def _template(y: Any) -> Template:
    if isinstance(y, Tensor):
        return tuple(y.shape[1:]), y.is_complex()
    return [_template(part) for part in y]


def _length(template: Template) -> int:
    if isinstance(template, list):
        return sum(_length(part) for part in template)
    return int(torch.Size(template[0]).numel()) * (2 if template[1] else 1)


def _unpacked(y: Tensor, template: Template) -> Any:
    """The measurement (B, C, H, W) in the physics' own form."""
    if isinstance(template, list):
        from deepinv.utils import TensorList

        parts: Sequence[Tensor] = y.split([_length(part) for part in template], dim=-1)
        return TensorList([_unpacked(part, own) for part, own in zip(parts, template, strict=True)])
    shape, is_complex = template
    if is_complex:
        return torch.view_as_complex(y.reshape(len(y), *shape, 2).contiguous())
    return y.reshape(len(y), *shape)
