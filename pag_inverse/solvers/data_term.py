"""When, and how far, a step follows the measurement: what gradient solvers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from pag_inverse.problem import InverseProblem, norms
from pag_inverse.schedule import Floats, Schedule
from pag_inverse.settings import NonNegative, settings
from pag_inverse.solvers.base import Solver

Spacing = Literal["even", "quadratic", "quartic"]


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

    def move(self, grad: Tensor, i: int, schedule: Schedule, loss: Tensor, target: Tensor, data: DataTerm) -> Tensor:
        """How far step i moves along `grad`, the gradient of `loss` (B,), as a tensor like it.

        `target` (B,) is what the noise leaves of the loss.
        """
        scale = float(self.step_scales(schedule)[i]) * data.above(self.noise_floor)
        if self.step_limit == "noise":
            scale = limited(scale, loss, target, grad)
        return scale * grad


@dataclass(frozen=True)
class DataTerm:
    """y - A(x0) of each image, (B, *out_shape), without a graph, and the problem that it belongs to."""

    left: Tensor
    problem: InverseProblem

    @property
    def residual(self) -> Tensor:
        """||y - A(x0)|| over what was measured, (B,)."""
        return norms(self.left * self.problem.mask)

    def above(self, floor: float) -> Tensor | float:
        """1 where the residual is more than `floor` times the noise level, else 0, (B, 1, 1, 1).

        Morozov's discrepancy principle: a residual no larger than the noise says nothing more about the image.
        """
        if floor == 0:
            return 1.0
        return (self.residual > floor * self.problem.noise_level()).to(self.left.dtype)[:, None, None, None]

    def norm_at_noise(self, level: Tensor) -> Tensor:
        """||left|| where the measured part of it is the noise level and the rest is as it is, (B,)."""
        whole, inside = norms(self.left).square(), self.residual.square()
        return (whole - inside + level.square()).sqrt()


def limited(scale: Tensor | float, loss: Tensor, target: Tensor, grad: Tensor) -> Tensor:
    """`scale`, but no more than takes `loss` to `target` to first order, (B, 1, 1, 1).

    Polyak's step: a move by scale along the gradient lowers the loss by scale ||grad||^2. Few long steps then do not
    overshoot.
    """
    most = (loss - target).clamp(min=0) / norms(grad).square().clamp(min=1e-20)
    return most[:, None, None, None].clamp(max=scale)


def every(interval: int, done: int) -> int:
    """`interval` at the first of `interval` steps and 0 at the others, `done` steps after the chain's start.

    What is done at each k-th step only is done k times as strongly there.
    """
    return interval if done % interval == 0 else 0
