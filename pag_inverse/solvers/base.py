"""What the loop asks of a solver."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators import Noise, Operator
from pag_inverse.guidance.guidance import Guidance
from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import Schedule


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


def check_step_size(name: str, value: float) -> float:
    """A step size: finite and not negative, else ValueError."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value}; it must be a number that is not negative")
    return float(value)
