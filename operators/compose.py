"""One operator after another."""

from __future__ import annotations

from functools import cached_property
from itertools import count
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.base import Operator
from operators.spectral import Factors, LinearMap, Separable, circulant_inverse, divided, probed_power

__all__ = ["Compose"]


class Compose(Operator):
    """A after B: y = A(B(x)) for `Compose(A, B)`.

    (B, *inner.in_shape) -> (B, *outer.out_shape). The adjoint is B* A*. It is linear where both are. What was measured
    is what the outer operator measures; masks and weights leave missing what was missing before. `project` with
    "published" has T = T_B T_A, the maps of the two operators as their own `project` says; with "adjoint" T = B* A*.

    `solve` has a closed form where A A* is diagonal and B keeps it so (a mask of greys), where both act on rows and
    columns separately (a Gaussian blur, then super-resolution), and where B B* is a multiple of the identity.
    ValueError: what is no operator, or two that do not fit.
    """

    def __init__(self, outer: Operator, inner: Operator, *, project: str = "published") -> None:
        for part in (outer, inner):
            if not isinstance(part, Operator):
                raise ValueError(f"a {type(part).__name__} cannot be composed; it must be an operators.Operator")
        if outer.in_shape != inner.out_shape:
            raise ValueError(
                f"{type(outer).__name__} takes images of {outer.in_shape}, but {type(inner).__name__} gives "
                f"{inner.out_shape}; build the outer operator for that shape"
            )
        super().__init__(inner.in_shape, outer.out_shape, project=project)
        self.outer, self.inner = outer, inner
        self.linear = outer.linear and inner.linear
        self.stationary = outer.stationary and inner.stationary

    def observation_mask(self, y: Tensor) -> Tensor:
        """What the outer operator measures, and where it multiplies entries, of what the inner one does: like y."""
        self._check(y, self.out_shape, "measurements")
        mask = self.outer.observation_mask(y)
        return mask if self.outer._entries() is None else mask * self.inner.observation_mask(y)

    def enlarge(self, y: Tensor) -> Tensor:
        """y as an image of in_shape, as the two operators show it one after the other."""
        self._check(y, self.out_shape, "measurements")
        return self.inner.enlarge(self.outer.enlarge(y))

    def arrays(self, b: int) -> dict[str, NDArray[Any]]:
        """Those of the parts, in the order in which they act; a name that two of them have is numbered from 1."""
        found = [entry for part in self.parts for entry in part.arrays(b).items()]
        names = [name for name, _ in found]
        numbered = {name: count(1) for name in names if names.count(name) > 1}
        return {f"{name}_{next(numbered[name])}" if name in numbered else name: array for name, array in found}

    @property
    def parts(self) -> list[Operator]:
        """The operators that are no compositions themselves, in the order in which they act."""
        found = []
        for part in (self.inner, self.outer):
            found += part.parts if isinstance(part, Compose) else [part]
        return found

    @property
    def has_posterior_mean(self) -> bool:
        """Whether both are linear, or the outer one has it and B B* is the identity, as that of a `Crop`."""
        if self.linear or not (self.outer.has_posterior_mean and self.inner.linear):
            return self.linear
        gram = self.inner._gram()
        return gram is not None and gram.numel() == 1 and float(gram) == 1

    def _posterior_mean(self, x: Tensor, y: Tensor, sigma: float, variance: float, iterations: int) -> Tensor:
        """Where B B* is the identity, B z is normal with the same variance, and the rest of z stays."""
        if self.linear or not self.has_posterior_mean:
            return super()._posterior_mean(x, y, sigma, variance, iterations)
        seen = self.inner.forward(x)
        met = self.outer.posterior_mean(seen, y, sigma, variance, iterations=iterations)
        return x + self.inner.adjoint(met - seen)

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _published_glue(self, y: Tensor) -> Tensor:
        return self.inner.glue(self.outer.glue(y))

    def _solve(self, r: Tensor, rho: Tensor, start: Tensor | None, tolerance: float, iterations: int) -> Tensor:
        if self._gram() is None and self._separable is not None:
            return self._separable.solve(r, rho)
        inner = self.inner._gram()
        if self._gram() is None and inner is not None and inner.numel() == 1:  # c A A* + rho
            gain = float(inner)
            first = None if start is None else gain * start
            return self.outer._solve(r, rho / gain, first, tolerance, iterations) / gain
        return super()._solve(r, rho, start, tolerance, iterations)

    def _preconditioner(self, r: Tensor, rho: Tensor) -> LinearMap | None:
        """By the spectrum where both are convolutions but for the border; under a mask or weights, the inner one's."""
        if self.stationary:
            power = probed_power(lambda u: self._forward(self._adjoint(u)), r)
            return circulant_inverse(power, rho, (r.shape[-2], r.shape[-1]))
        entries = self.outer._entries()
        return None if entries is None else self._under(entries.to(r), r, rho)

    def _under(self, entries: Tensor, r: Tensor, rho: Tensor) -> LinearMap | None:
        """(D B B* D + rho)^-1 for D of `entries` d, nearly: D^+ (B B* + rho mean d^-2)^-1 D^+, 1 / rho where d is 0."""
        inverse, seen = divided(torch.ones_like(entries), entries.abs()) * entries.sign(), entries != 0
        share = seen.double().flatten(1).mean(dim=1)[:, None, None, None]
        mean = inverse.square().flatten(1).mean(dim=1)[:, None, None, None] / share.to(r)
        inner = self.inner._preconditioner(r, rho * mean)
        if inner is None:
            return None
        rest = torch.where(rho > 0, 1 / rho.clamp(min=torch.finfo(r.dtype).tiny), 1.0)
        return lambda u: inverse * inner(inverse * u) + torch.where(seen, 0.0, rest * u)

    def _entries(self) -> Tensor | None:
        outer, inner = self.outer._entries(), self.inner._entries()
        return None if outer is None or inner is None else _product(outer, inner)

    def _gram(self) -> Tensor | None:
        outer, inner = self.outer._gram(), self.inner._gram()
        if outer is None or inner is None:
            return None
        entries = self.outer._entries()
        if entries is not None:
            return _product(entries.square(), inner)
        return _product(outer, inner) if inner.numel() == 1 else None

    def _factors(self) -> Factors | None:
        outer, inner = self.outer._factors(), self.inner._factors()
        return None if outer is None or inner is None else outer.after(inner)

    @cached_property
    def _separable(self) -> Separable | None:
        """The closed form of the two together; None where one of them does not act on rows and columns separately."""
        factors = self._factors()
        return None if factors is None else factors.separable(*self.out_shape[1:])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a times b where the arrays of one are on a device; the constant of an operator without arrays is not."""
    return a.to(b.device) * b if a.numel() == 1 else a * b.to(a.device)
