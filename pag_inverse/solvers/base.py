"""What the loop asks of a solver."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators import Noise, Operator
from pag_inverse.guidance import Guidance
from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import Schedule
from pag_inverse.settings import PARTS, STEP_LIMITS


@dataclass(frozen=True)
class StepOutput:
    """The next state z, the unguided image estimate x0, and ||y - A(x0)|| over what was measured, one an image.

    A step that does not look at the image (PSLD where the gradient is left out) has no x0, and NaN for its residual.
    """

    z: Tensor
    x0: Tensor | None
    residual: Tensor


class Solver(abc.ABC):
    """One algorithm: its chain of timesteps and one step along it. Everything is per image of the batch."""

    @abc.abstractmethod
    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The chain of `steps` timesteps, 1 to 1000."""

    @abc.abstractmethod
    def step(
        self,
        z: Tensor,
        i: int,
        schedule: Schedule,
        y: Tensor,
        noise: Noise,
        operator: Operator,
        prior: Prior,
        guidance: Guidance,
        draw: Draw,
    ) -> StepOutput:
        """Step i of the chain (0 is the last one executed)."""

    def check(self, operator: Operator) -> None:  # noqa: B027 - most solvers take any operator
        """Raise ValueError where this solver cannot use the operator."""


def norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each image of a batch, (B,); its gradient at 0 is 0."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def measured_residual(y: Tensor, prediction: Tensor, operator: Operator) -> Tensor:
    """||y - A(x0)|| of each image over what was measured, without a graph."""
    return norms((y - prediction.detach()) * operator.measured(y))


STEP_SCALINGS = ("constant", "sqrt_abar")


def check_step_scaling(scaling: str) -> str:
    """`constant` or `sqrt_abar`, else ValueError."""
    if scaling not in STEP_SCALINGS:
        raise ValueError(f"step_scaling is {scaling!r}; it must be one of {', '.join(STEP_SCALINGS)}")
    return scaling


def step_scale(scaling: str, schedule: Schedule, i: int) -> float:
    """What multiplies the step sizes at step i: 1, or sqrt(abar).

    x0 moves by up to 1 / sqrt(abar) for a unit move of x_t, so that a constant step overshoots where noise is strong.
    """
    return float(schedule.abar[i]) ** 0.5 if scaling == "sqrt_abar" else 1.0


def every(interval: int, done: int) -> int:
    """`interval` at the first of `interval` steps and 0 at the others, `done` steps after the chain's start.

    What is done at each k-th step only is done k times as strongly there.
    """
    return interval if done % interval == 0 else 0


def gradient_weight(interval: int, part: str, i: int, steps: int) -> int:
    """What multiplies step i's move along the data's gradient; 0 where it needs none.

    `every` of `interval` in the `early` half of the steps, the `late` one, or `all`; 1 in the other half.
    """
    inside = part == "all" or (part == "early") == (2 * i >= steps)
    return every(interval, steps - 1 - i) if inside else 1


def check_intervals(gradient_interval: int, gradient_part: str, encode_interval: int = 1) -> tuple[int, str, int]:
    """Whole numbers of at least 1, and one of `all`, `early`, `late`; else ValueError."""
    for name, value in (("gradient_interval", gradient_interval), ("encode_interval", encode_interval)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1")
    if gradient_part not in PARTS:
        raise ValueError(f"gradient_part is {gradient_part!r}; it must be one of {', '.join(PARTS)}")
    return gradient_interval, gradient_part, encode_interval


def above_noise(residual: Tensor, floor: float, y: Tensor, noise: Noise, operator: Operator) -> Tensor | float:
    """What multiplies the data step of each image, (B, 1, 1, 1): 0 where its residual is no more than the noise.

    Morozov's discrepancy principle: ||y - A(x0)|| <= floor sigma sqrt(m) over the m values that were measured says
    nothing more about the image. A floor of 0 is the published way: every step is taken.
    """
    if floor == 0:
        return 1.0
    unit = noise.sigma * operator.measured(y).flatten(1).sum(dim=1).sqrt()
    return (residual > floor * unit).to(y.dtype)[:, None, None, None]


def limited(
    scale: Tensor | float, limit: str, eta: float, left: Tensor, sigma: float, grad: Tensor, measured: Tensor
) -> Tensor | float:
    """`scale` of a move along `grad`, the gradient of eta ||left||; with the limit `noise` less of it, (B, 1, 1, 1).

    Polyak's step: to first order the move lowers eta ||left|| by scale ||grad||^2, and shall not take it below eta
    times what noise of sigma leaves of it. Few long steps then do not overshoot.
    """
    if limit == "none":
        return scale
    whole, inside = norms(left).square(), norms(left * measured).square()
    noise = (whole - inside + sigma**2 * measured.flatten(1).sum(dim=1)).sqrt()
    most = eta * (whole.sqrt() - noise).clamp(min=0) / norms(grad).square().clamp(min=1e-20)
    return most[:, None, None, None].clamp(max=scale)


def check_step_limit(limit: str) -> str:
    """`none` or `noise`, else ValueError."""
    if limit not in STEP_LIMITS:
        raise ValueError(f"step_limit is {limit!r}; it must be one of {', '.join(STEP_LIMITS)}")
    return limit


def check_step_size(name: str, value: float) -> float:
    """A step size: finite and not negative, else ValueError."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value}; it must be a number that is not negative")
    return float(value)
