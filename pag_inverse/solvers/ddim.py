"""What solvers share that correct x0 by the measurement, and then take a DDIM step from it."""

from __future__ import annotations

from typing import Annotated, Literal

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

SMALLEST_SIGMA = 0.01  # on [-1, 1]: an image of 8 bits has 0.002, and a linear solve needs some damping


@settings
class DDIMOptions:
    """Options of solvers that correct x0 and take a DDIM step."""

    spacing: Annotated[Spacing, Field(description="of the timesteps: even, or most of them at little noise")] = "even"
    ddim_eta: Annotated[Unit, Field(description="noise of a DDIM step; 0 is deterministic, 1 as much as DDPM")] = 1.0
    data_x0: Annotated[
        Literal["unguided", "guided"],
        Field(description="the x0 that meets the measurement: the paper's, or the guided"),
    ] = "unguided"
    renoise: Annotated[
        Literal["posterior", "guided", "unguided"],
        Field(description="the eps of the step: that of the corrected x0, the guided, or the unguided (CFG++)"),
    ] = "posterior"


class DDIMSolver(DDIMOptions, Solver):
    """A solver that corrects x0 by the measurement and takes a DDIM step from it; see `DDIMOptions`."""

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The respaced chain whose last step ends at the image."""
        return Schedule.ddpm(prior.betas, steps, self.spacing)

    def move(self, x_t: Tensor, x0: Tensor, eps: GuidedEps, i: int, schedule: Schedule, draw: Draw) -> Tensor:
        """x_{t-1} of the corrected x0 by DDIM (Song et al., 2021, Eq. 12), with the eps that `renoise` names."""
        if self.renoise == "posterior":
            abar = float(schedule.abar[i])
            chosen = (x_t - abar**0.5 * x0) / (1 - abar) ** 0.5
        else:
            chosen = eps.guided if self.renoise == "guided" else eps.unguided.detach()
        noise = draw(tuple(x_t.shape)) if self.ddim_eta > 0 and i > 0 else None
        return schedule.ddim_step(x0, chosen, i, self.ddim_eta, noise)


def noise_sigma(problem: InverseProblem) -> float:
    """The standard deviation of the measurement's noise, at least `SMALLEST_SIGMA`: 0 stands for unknown too."""
    return max(float(problem.noise.sigma), SMALLEST_SIGMA)
