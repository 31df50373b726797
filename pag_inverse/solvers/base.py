"""What the loop asks of a solver."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from operators import Draw, Operator
from pag_inverse.guidance import GuidedModel
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem
from pag_inverse.schedule import Floats, Schedule
from pag_inverse.solvers.presets import Preset


@dataclass(frozen=True)
class State:
    """What one step hands to the next: the sample z (B, *state). A solver may add tensors of its own in a subclass.

    >>> import torch
    >>> from pag_inverse import State
    >>> State(torch.zeros(1, 3, 64, 64)).z.shape
    torch.Size([1, 3, 64, 64])
    """

    z: Tensor


@dataclass(frozen=True)
class StepOutput:
    """The next state, the image estimate x0 (B, 3, H, W), and ||y - A(x0)|| over what was measured, (B,).

    A step that does not look at the image has no x0, and NaN for its residual.

    >>> import torch
    >>> from pag_inverse import State, StepOutput
    >>> z = torch.zeros(1, 3, 64, 64)
    >>> StepOutput(State(z), x0=z, residual=torch.zeros(1)).z is z
    True
    """

    state: State
    x0: Tensor | None
    residual: Tensor

    @property
    def z(self) -> Tensor:
        """The next sample."""
        return self.state.z


class Solver(abc.ABC):
    """One algorithm: its chain of timesteps, its start, one step, its end. Everything is per image of the batch.

    A solver with options is a frozen dataclass (`@settings`) of them. It holds no state: that is in `State`.

    >>> from pag_inverse import DPS, SOLVERS, load_prior
    >>> SOLVERS["dps"] is DPS
    True
    >>> solver = DPS(eta=1.0)
    >>> solver.schedule(load_prior("pixel"), 4).timesteps.tolist()
    [0, 333, 666, 999]
    >>> solver.options()["eta"]
    1.0
    """

    STEP_SIZES: ClassVar[tuple[str, ...]] = ()  # options that grow with the picture's side and shrink with more steps
    PRESETS: ClassVar[Mapping[str, Preset]] = {}  # by the name of a speed
    default_prior: ClassVar[str] = "pixel"
    pixel_only: ClassVar[bool] = False  # its state is the image
    linear_only: ClassVar[bool] = False  # it needs A* or a linear solve
    backward: ClassVar[bool] = True  # a gradient goes through the network

    @abc.abstractmethod
    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The chain of `steps` timesteps, 1 to 1000."""

    @classmethod
    def takes(cls, operator: Operator) -> bool:
        """Whether this kind of solver works with an operator."""
        return operator.linear or not cls.linear_only

    def check(self, problem: InverseProblem, prior: Prior) -> None:
        """Raise ValueError where this solver cannot solve the problem with this prior."""
        name, shape = type(self).__name__, tuple(problem.operator.in_shape)
        if self.pixel_only and tuple(prior.state_shape(shape)) != shape:
            remedy = f"take prior {self.default_prior}"
            raise ValueError(f"{name} needs a pixel prior; the state of prior {prior.name} is a latent: {remedy}")
        if not self.takes(problem.white.operator):
            parts = getattr(problem.operator, "parts", [problem.operator])
            found = " of ".join(type(part).__name__ for part in reversed(parts) if not part.linear)
            raise ValueError(
                f"{name} needs a linear operator; {found or type(problem.operator).__name__} is not: take dps"
            )

    def start(self, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw) -> State:
        """The state before the first step: a standard normal."""
        shape = model.prior.state_shape(problem.operator.in_shape)
        return State(draw((len(problem), *shape)))

    @abc.abstractmethod
    def step(
        self,
        state: State,
        i: int,
        problem: InverseProblem,
        model: GuidedModel,
        schedule: Schedule,
        draw: Draw,
    ) -> StepOutput:
        """Step i of the chain; 0 is the last one executed."""

    def finish(self, state: State, model: GuidedModel) -> Tensor:
        """The images (B, 3, H, W) of the last state."""
        return model.decode(state.z)

    def step_scales(self, schedule: Schedule) -> Floats:
        """What multiplies the step sizes at each step of the chain, (N,)."""
        return np.ones(len(schedule))

    def options(self) -> dict[str, Any]:
        """The options by name."""
        return asdict(self) if is_dataclass(self) else {}
