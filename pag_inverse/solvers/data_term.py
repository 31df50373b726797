"""When, and how far, a step follows the measurement: what gradient solvers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pag_inverse.problem import InverseProblem, norms
from pag_inverse.schedule import Floats, Schedule
from pag_inverse.settings import NonNegative, settings
from pag_inverse.solvers.base import Solver

Spacing = Literal["even", "quadratic", "quartic"]
POWER_ITERATIONS = 20  # from a start with all frequencies and a mean: blurs' norms were 1 % too small at most


@settings
class GradientOptions:
    """Options of solvers that follow the gradient of a norm. The defaults are the published programs' own."""

    eta: Annotated[NonNegative, Field(description="step size of the data term (Tables 5 and 7)")] = 1.0
    spacing: Annotated[Spacing, Field(description="of the timesteps: even, or most of them at little noise")] = "even"
    step_scaling: Annotated[
        Literal["constant", "sqrt_abar"], Field(description="of the step sizes: none, or times sqrt(abar)")
    ] = "constant"
    noise_floor: Annotated[
        NonNegative, Field(description="the data terms rest while the residual is below so many sigma sqrt(m)")
    ] = 0.0
    step_limit: Annotated[
        Literal["none", "noise"], Field(description="noise: no step goes past where the residual is the noise's")
    ] = "none"


class GradientSolver(GradientOptions, Solver):
    """A solver that moves along the gradient of its data terms; see `GradientOptions`."""

    def step_scales(self, schedule: Schedule) -> Floats:
        """1, or sqrt(abar): x0 moves by up to 1 / sqrt(abar) for a unit move of x_t, so that a constant step
        overshoots where noise is strong."""
        return np.sqrt(schedule.abar) if self.step_scaling == "sqrt_abar" else np.ones(len(schedule))

    def move(self, grad: Tensor, i: int, schedule: Schedule, data: DataTerm, rate: Tensor) -> Tensor:
        """How far step i moves along `grad`, as a tensor like it.

        `rate` (B,): how fast ||data.left|| falls for a move by 1 along the gradient, to first order.
        """
        scale = float(self.step_scales(schedule)[i]) * data.above(self.noise_floor)
        if self.step_limit == "noise":
            scale = limited(scale, data.excess, rate)
        return scale * grad


@dataclass(frozen=True)
class DataTerm:
    """What a prediction leaves of the measurement, without a graph.

    `left` (B, *out_shape) is what the norm is taken of, `difference` is y - A(x0): the two differ where noise was
    added to the prediction, whose level is then sqrt(2) sigma.
    """

    left: Tensor
    difference: Tensor
    problem: InverseProblem

    @property
    def residual(self) -> Tensor:
        """||y - A(x0)|| over what was measured, (B,)."""
        return norms(self.difference * self.problem.mask)

    @property
    def excess(self) -> Tensor:
        """How far ||left|| is above what the noise leaves of it, (B,), 0 where it is below."""
        renoised = self.left is not self.difference
        level = self.problem.noise_level() * (2**0.5 if renoised else 1.0)
        whole, inside = norms(self.left).square(), norms(self.left * self.problem.mask).square()
        return (whole.sqrt() - (whole - inside + level.square()).sqrt()).clamp(min=0)

    def above(self, floor: float) -> Tensor | float:
        """1 where the residual is more than `floor` times the noise level, else 0, (B, 1, 1, 1).

        Morozov's discrepancy principle: a residual no larger than the noise says nothing more about the image.
        """
        if floor == 0:
            return 1.0
        return (self.residual > floor * self.problem.noise_level()).to(self.left.dtype)[:, None, None, None]


def data_gradient(problem: InverseProblem, x: Tensor) -> Tensor:
    """The gradient of ||y - A(x)||^2 / 2 at images x, a tensor like x: A* (A x - y), or autograd's."""
    operator = problem.operator
    if operator.linear:
        return operator.adjoint(operator.forward(x) - problem.y)
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad((operator.forward(x) - problem.y).square().sum() / 2, x)
    return grad


@torch.no_grad()
def gain(problem: InverseProblem) -> Tensor:
    """||A||^2 of each image's operator, (B,), 0 where it is not linear.

    By power iterations on A* A: a few per cent too small at most, and the same for an image in any batch.
    """
    y, operator = problem.y, problem.operator
    found = y.new_zeros(len(problem))
    if operator.linear:
        shape, generator = tuple(operator.in_shape), torch.Generator().manual_seed(0)
        x = (1 + torch.randn(shape, generator=generator)).to(y).expand(len(problem), *shape)
        for _ in range(POWER_ITERATIONS):
            x = operator.adjoint(operator.forward(x / norms(x).clamp(min=1e-20)[:, None, None, None]))
        found = norms(x)
    return found


def limited(scale: Tensor | float, excess: Tensor, rate: Tensor) -> Tensor:
    """`scale`, but no more than takes the excess to 0 to first order, (B, 1, 1, 1).

    Polyak's step: a move by scale lowers the norm by scale times rate. Few long steps then do not overshoot. A move
    that does not lower the norm (rate not above 0) is not limited.
    """
    most = torch.where(rate > 1e-20, excess / rate.clamp(min=1e-20), torch.inf)
    return most[:, None, None, None].clamp(max=scale)


def every(interval: int, done: int) -> int:
    """`interval` at the first of `interval` steps and 0 at the others, `done` steps after the chain's start.

    What is done at each k-th step only is done k times as strongly there.
    """
    return interval if done % interval == 0 else 0
