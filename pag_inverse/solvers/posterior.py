"""What solvers share that correct x0 by the measurement and go on from the corrected one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from operators import Draw
from pag_inverse.guidance.guidance import GuidedEps
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem
from pag_inverse.schedule import Schedule
from pag_inverse.settings import Unit, settings
from pag_inverse.solvers.base import Solver
from pag_inverse.solvers.data_term import Spacing
from pag_inverse.solvers.presets import Preset

SMALLEST_SIGMA = 0.01  # on [-1, 1]: an image of 8 bits has 0.002, and a linear solve needs some damping

LARGEST_FACTOR = 1e6  # of a damping: beyond it, or below its inverse, the damping may leave float32

Factor = Annotated[float, Field(ge=1 / LARGEST_FACTOR, le=LARGEST_FACTOR)]
DataX0 = Literal["unguided", "guided"]
Renoise = Literal["posterior", "guided", "unguided"]


@settings
class PosteriorOptions:
    """Options of solvers that correct x0 by the measurement and add noise again."""

    spacing: Annotated[Spacing, Field(description="of the timesteps: even, or most of them at little noise")] = "even"
    data_x0: Annotated[DataX0, Field(description="the x0 that meets the measurement: the paper's, or the guided")] = (
        "unguided"
    )
    renoise: Annotated[
        Renoise, Field(description="the eps of the step: that of the corrected x0, the guided, the unguided (CFG++)")
    ] = "posterior"


class PosteriorSolver(PosteriorOptions, Solver):
    """A solver that corrects x0 by the measurement, and goes on from the corrected x0; see `PosteriorOptions`.

    `data_x0` names the x0 that meets the measurement. Its correction is added to the x0 of the guided eps.
    """

    PRESETS: ClassVar[Mapping[str, Preset]] = {"fast": Preset(20), "draft": Preset(15)}
    pixel_only: ClassVar[bool] = True
    linear_only: ClassVar[bool] = True

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The respaced chain whose last step ends at the image."""
        return Schedule.ddpm(prior.betas, steps, self.spacing)

    def met(self, x0: Tensor, x0_guided: Tensor) -> Tensor:
        """The x0 that meets the measurement, without a graph."""
        return x0.detach() if self.data_x0 == "unguided" else x0_guided

    def eps_of_step(self, x_t: Tensor, x0: Tensor, eps: GuidedEps, i: int, schedule: Schedule) -> Tensor:
        """The eps that `renoise` names, for a corrected x0."""
        if self.renoise == "posterior":
            abar = float(schedule.abar[i])
            return (x_t - abar**0.5 * x0) / (1 - abar) ** 0.5
        return eps.guided if self.renoise == "guided" else eps.unguided.detach()


@settings
class DDIMOptions(PosteriorOptions):
    """Those options, and the noise of a DDIM step."""

    ddim_eta: Annotated[Unit, Field(description="noise of a DDIM step; 0 is deterministic, 1 as much as DDPM")] = 1.0


class DDIMSolver(DDIMOptions, PosteriorSolver):
    """A solver that corrects x0 by the measurement, and takes a DDIM step from the corrected x0."""

    def move(self, x_t: Tensor, x0: Tensor, eps: GuidedEps, i: int, schedule: Schedule, draw: Draw) -> Tensor:
        """x_{t-1} of a corrected x0 by DDIM (Song et al., 2021, Eq. 12)."""
        noise = draw(tuple(x_t.shape)) if self.ddim_eta > 0 and i > 0 else None
        return schedule.ddim_step(x0, self.eps_of_step(x_t, x0, eps, i, schedule), i, self.ddim_eta, noise)


def noise_sigma(problem: InverseProblem) -> float:
    """The standard deviation of the measurement's noise, at least `SMALLEST_SIGMA`: 0 stands for unknown too."""
    return max(float(problem.noise.sigma), SMALLEST_SIGMA)
