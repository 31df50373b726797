"""What every measurement operator has in common."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from operators.conjugate_gradients import conjugate_gradients
from operators.copies import Copyable, no_inference_mode
from operators.spectral import Factors, divided
from operators.validation import Shape, check_choice, check_shape, short, validated

__all__ = ["PROJECTIONS", "Operator", "Projection", "Shape"]

Op = TypeVar("Op", bound="Operator")
Array = NDArray[Any] | Tensor
Projection = Literal["published", "adjoint"]
PROJECTIONS: tuple[str, ...] = get_args(Projection)
TOLERANCE, ITERATIONS = 1e-3, 100  # of `solve`: relative residual, and the most iterations


class Operator(Copyable, abc.ABC):
    """The operator A of a measurement y = A(x) + n (Ahn et al., Self-Rectifying Diffusion Sampling with
    Perturbed-Attention Guidance, inverse problems).

    Images x are (B, *in_shape) and measurements y (B, *out_shape), floating point, range [-1, 1]; the shapes
    are (C, H, W). Results have the dtype and the device of the input. `project` picks the map T of the gluing
    term: "published" is what the tables were tuned with, "adjoint" is the textbook's T = A*.
    ValueError: another `project`, images that do not fit the shapes or the number of masks or kernels.

    A subclass writes `_forward`. The adjoint follows by autograd; write `_adjoint` where there is a faster one. Set
    `linear = False` where A is not linear. To be built by name, it sets `Settings`, a class of settings, and writes
    `_from_settings`. Arrays are kept as tensors. `per_image` names the attributes with one entry for each image, or
    one for all: tensors, tuples or lists. They add to those of the parent class. Values that are computed from the
    arrays at first use belong in a `functools.cached_property`: `select` and `to` drop them.

    `_posterior_mean` is optional for an operator that is not linear.
    Optional, for a closed form of `solve` alone and in compositions: `_entries` where A multiplies each entry,
    `_gram` where A A* is diagonal, `_factors` where A acts on rows and columns separately. `stationary = True` where
    A A* is about a convolution.
    """

    linear: bool = True
    stationary: bool = False
    Settings: ClassVar[type | None] = None

    def __init__(self, in_shape: Shape, out_shape: Shape, *, project: str = "published") -> None:
        self.in_shape = check_shape(in_shape)
        self.out_shape = check_shape(out_shape)
        self.gluing = check_choice("project", project, PROJECTIONS)

    @classmethod
    def from_settings(cls: type[Op], in_shape: Shape, settings: object, rngs: Sequence[np.random.Generator]) -> Op:
        """The operator for a batch of images, with one random generator for each of them.

        `settings` is an object of the class `Settings`, or a mapping of its values. ValueError: an unknown,
        missing or faulty setting.
        """
        return cls._from_settings(in_shape, cls.read_settings(settings), rngs)

    @classmethod
    def read_settings(cls, values: object, where: str = "") -> Any:
        """`values` as an object of `Settings`; a ValueError of one line that begins with `where` (the class's
        name) otherwise."""
        if cls.Settings is None:
            raise ValueError(f"{where or cls.__name__} has no settings: build it from its arrays")
        return values if isinstance(values, cls.Settings) else validated(cls.Settings, values, where or cls.__name__)

    @classmethod
    def image_shape(cls, measured: Shape, settings: Any) -> Shape:
        """The `in_shape` with which an operator of an object of `Settings` measures what has the shape `measured`."""
        return measured

    @classmethod
    def _from_settings(cls: type[Op], in_shape: Shape, settings: Any, rngs: Sequence[np.random.Generator]) -> Op:
        """The operator of an object of `Settings`."""
        raise NotImplementedError(f"{cls.__name__} has Settings, but does not write _from_settings")

    def forward(self, x: Tensor) -> Tensor:
        """A x: (B, *in_shape) -> (B, *out_shape). ValueError where the shape or the batch does not fit."""
        self._check(x, self.in_shape, "images")
        with no_inference_mode():
            return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A* y, where <A x, y> = <x, A* y>: (B, *out_shape) -> (B, *in_shape).

        ValueError where the shape or the batch does not fit, or A is not linear.
        """
        self._check(y, self.out_shape, "measurements")
        if not self.linear:
            raise ValueError(f"{type(self).__name__} is not linear: it has no adjoint")
        with no_inference_mode():
            return self._adjoint(y)

    @torch.no_grad()
    def solve(
        self,
        r: Tensor,
        rho: Tensor | float,
        *,
        start: Tensor | None = None,
        tolerance: float = TOLERANCE,
        iterations: int = ITERATIONS,
    ) -> Tensor:
        """(A A* + rho)^-1 r: (B, *out_shape) -> (B, *out_shape), each image by itself, without a graph.

        `rho` is 0 or more, one number or (B,). The base class uses conjugate gradients: an image is finished where
        ||r - (A A* + rho) u|| <= tolerance ||r||, or after `iterations`; `start` is the first u. A subclass with a
        closed form ignores these three, and with rho = 0 gives the pseudo-inverse of A A*.
        ValueError where the shape or the batch does not fit, rho is negative, infinite or NaN, or A is not linear.
        """
        self._check(r, self.out_shape, "measurements")
        if not self.linear:
            raise ValueError(f"{type(self).__name__} is not linear: it has no solve")
        if start is not None and start.shape != r.shape:
            raise ValueError(
                f"start of shape {tuple(start.shape)}; it must be that of the measurements {tuple(r.shape)}"
            )
        precise = _precise(r)
        damping = torch.as_tensor(rho, dtype=precise.dtype, device=r.device).reshape(-1, 1, 1, 1)
        if len(damping) not in (1, len(r)) or not bool(((damping >= 0) & damping.isfinite()).all()):
            allowed = f"one finite number, 0 or more, or one for each of {len(r)} images"
            raise ValueError(f"rho is {short(rho)}; it must be {allowed}")
        with no_inference_mode():
            first = None if start is None else start.to(precise)
            return self._solve(precise, damping, first, tolerance, iterations).to(r.dtype)

    @torch.no_grad()
    def pinv(self, y: Tensor, rho: Tensor | float = 0.0) -> Tensor:
        """A* (A A* + rho)^-1 y, the pseudo-inverse, by Tikhonov where rho > 0: (B, *out_shape) -> (B, *in_shape).

        A tensor like y, without a graph. Without a closed form, rho = 0 is the last iterate of `solve`, and far from
        the pseudo-inverse where y holds noise that A cannot give: take rho > 0. ValueError as in `solve`.
        """
        return self.adjoint(self.solve(_precise(y), rho)).to(y.dtype)

    @torch.no_grad()
    def prox(self, x: Tensor, y: Tensor, rho: Tensor | float) -> Tensor:
        """argmin_z ||y - A z||^2 + rho ||z - x||^2 = x + A* (A A* + rho)^-1 (y - A x), (B, *in_shape).

        A tensor like x, without a graph. ValueError as in `solve`.
        """
        precise = _precise(x)
        return (precise + self.adjoint(self.solve(y - self.forward(precise), rho))).to(x.dtype)

    @property
    def has_posterior_mean(self) -> bool:
        """Whether `posterior_mean` is to be had: of linear operators, and of those that write `_posterior_mean`."""
        return self.linear or type(self)._posterior_mean is not Operator._posterior_mean

    @torch.no_grad()
    def posterior_mean(
        self, x: Tensor, y: Tensor, sigma: float, variance: float, *, iterations: int = ITERATIONS
    ) -> Tensor:
        """E[z] given y = A z + n with n ~ N(0, sigma^2), for images z ~ N(x, variance): like x, without a graph.

        For a linear operator it is `prox` with rho = sigma^2 / variance; `iterations` are at most those of `solve`.
        Another one has it where `has_posterior_mean` says so. ValueError as in `solve`; a variance that is not above 0.
        """
        self._check(x, self.in_shape, "images")
        self._check(y, self.out_shape, "measurements")
        if len(x) != len(y):
            raise ValueError(f"{len(x)} images and {len(y)} measurements; they go in pairs")
        if not 0 < variance < float("inf"):
            raise ValueError(f"variance is {variance}; it must be above 0 and finite")
        return self._posterior_mean(_precise(x), _precise(y), sigma, variance, iterations).to(x.dtype)

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

    def arrays(self, b: int) -> dict[str, NDArray[Any]]:
        """The arrays of image b of the batch by name, to be saved; empty where the settings say everything.

        An operator that is built from them gives the same measurement. ValueError: there is no image b.
        """
        return {}

    @abc.abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """A x, shapes already checked."""

    def _adjoint(self, y: Tensor) -> Tensor:
        """A* y, shapes already checked: the vector-Jacobian product, exact for any linear operator."""
        keep_graph = torch.is_grad_enabled() and y.requires_grad
        y = y.clone() if y.is_inference() else y
        with torch.enable_grad():
            zeros = y.new_zeros((len(y), *self.in_shape), requires_grad=True)
            (x,) = torch.autograd.grad(self._forward(zeros), zeros, y, create_graph=keep_graph)
        return x

    def _solve(self, r: Tensor, rho: Tensor, start: Tensor | None, tolerance: float, iterations: int) -> Tensor:
        """`solve`, everything already checked: r in float32 or better, rho (1 or B, 1, 1, 1)."""
        diagonal = self._gram()
        if diagonal is not None:
            return divided(r, diagonal.to(r) + rho)
        return conjugate_gradients(
            lambda u: self._forward(self._adjoint(u)) + rho * u,
            r,
            start=start,
            tolerance=tolerance,
            iterations=iterations,
            precondition=self._preconditioner(r, rho),
        )

    def _posterior_mean(self, x: Tensor, y: Tensor, sigma: float, variance: float, iterations: int) -> Tensor:
        """`posterior_mean`, everything already checked, in float32 or better."""
        return x + self.adjoint(self.solve(y - self.forward(x), sigma**2 / variance, iterations=iterations))

    def _preconditioner(self, r: Tensor, rho: Tensor) -> Callable[[Tensor], Tensor] | None:
        """A cheap map near (A A* + rho)^-1 for tensors like r; None where there is none."""
        return None

    def _entries(self) -> Tensor | None:
        """What A multiplies each entry by, (1 or B, 1 or C, H, W); None where it does more than that."""
        return None

    def _gram(self) -> Tensor | None:
        """The diagonal of A A*, to be broadcast over measurements; None where A A* is not diagonal."""
        entries = self._entries()
        return None if entries is None else entries.square()

    def _factors(self) -> Factors | None:
        """A as a matrix for rows and one for columns; None where it is none."""
        return None

    def _published_glue(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def _check(self, images: Tensor, shape: Shape, what: str) -> None:
        name = type(self).__name__
        if images.ndim != 4 or tuple(images.shape[1:]) != shape:
            takes = f"(B, {', '.join(map(str, shape))})"
            raise ValueError(f"{name}: {what} of shape {tuple(images.shape)}; it takes {takes}")
        if not images.is_floating_point():
            raise ValueError(f"{name}: {what} of {images.dtype}; it takes floating point in [-1, 1]")
        self._check_count(len(images), what)

    def _check_count(self, batch: int, what: str) -> None:
        """ValueError where arrays of this operator, or of one inside it, are for another number of images."""
        for count in (len(getattr(self, attribute)) for attribute in self.per_image):
            if count not in (1, batch):
                raise ValueError(
                    f"{type(self).__name__}: a batch of {batch} {what}, but it was built for {count}; "
                    "use select() for some of them"
                )
        for part in vars(self).values():
            if isinstance(part, Operator):
                part._check_count(batch, what)


def _precise(images: Tensor) -> Tensor:
    """In float32 where they are in half precision: u = r / rho may lie beyond the range of float16."""
    return images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
