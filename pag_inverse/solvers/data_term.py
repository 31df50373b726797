"""When, and how far, a step follows the measurement: what both solvers do with the gradient of their data term."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from operators import Noise, Operator
from pag_inverse.schedule import Schedule
from pag_inverse.settings.tables import SolverOptions
from pag_inverse.solvers.base import norms


def every(interval: int, done: int) -> int:
    """`interval` at the first of `interval` steps and 0 at the others, `done` steps after the chain's start.

    What is done at each k-th step only is done k times as strongly there.
    """
    return interval if done % interval == 0 else 0


def gradient_weight(options: SolverOptions, i: int, steps: int) -> int:
    """What multiplies step i's move along the data's gradient; 0 where it needs none.

    `every` of `gradient_interval` in the `early` half of the steps, the `late` one, or `all`; 1 in the other half.
    """
    part = options.gradient_part
    inside = part == "all" or (part == "early") == (2 * i >= steps)
    return every(options.gradient_interval, steps - 1 - i) if inside else 1


@dataclass(frozen=True)
class Misfit:
    """What a prediction leaves of the measurement: `left` = y - A(x0), `measured` 1 where y has a value and 0
    elsewhere, both like y, and `sigma` of the noise in it."""

    left: Tensor
    measured: Tensor
    sigma: float

    @classmethod
    def of(cls, left: Tensor, operator: Operator, noise: Noise) -> Misfit:
        """Without a graph."""
        return cls(left.detach(), operator.observation_mask(left), noise.sigma)

    @property
    def residual(self) -> Tensor:
        """||y - A(x0)|| of each image over what was measured, (B,)."""
        return norms(self.left * self.measured)

    @property
    def noise(self) -> Tensor:
        """sigma sqrt(m) of each image, the residual of the truth, (B,)."""
        return self.sigma * self.measured.flatten(1).sum(dim=1).sqrt()

    def above(self, floor: float) -> Tensor | float:
        """1 where the residual is more than `floor` times the noise's, else 0, (B, 1, 1, 1).

        Morozov's discrepancy principle: a residual no larger than the noise says nothing more about the image.
        """
        if floor == 0:
            return 1.0
        return (self.residual > floor * self.noise).to(self.left.dtype)[:, None, None, None]

    def limit(self, scale: Tensor | float, eta: float, grad: Tensor) -> Tensor | float:
        """Of a move by `scale` along `grad`, the gradient of eta ||left||: up to the noise at most, (B, 1, 1, 1).

        Polyak's step: to first order the move lowers eta ||left|| by scale ||grad||^2, and shall not take it below eta
        times what the noise leaves of it. Few long steps then do not overshoot.
        """
        whole, inside = norms(self.left).square(), self.residual.square()
        least = (whole - inside + self.noise.square()).sqrt()
        most = eta * (whole.sqrt() - least).clamp(min=0) / norms(grad).square().clamp(min=1e-20)
        return most[:, None, None, None].clamp(max=scale)


def step_scale(options: SolverOptions, schedule: Schedule, i: int) -> float:
    """What multiplies the step sizes at step i: 1, or sqrt(abar).

    x0 moves by up to 1 / sqrt(abar) for a unit move of x_t, so that a constant step overshoots where noise is strong.
    """
    return float(schedule.abar[i]) ** 0.5 if options.step_scaling == "sqrt_abar" else 1.0
