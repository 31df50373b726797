"""Denoising diffusion null-space models, DDNM+ (Wang et al., 2023), with PAG."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from operators import Draw
from pag_inverse.guidance import GuidedModel
from pag_inverse.problem import InverseProblem
from pag_inverse.schedule import Schedule
from pag_inverse.settings import NonNegative, Unit, settings
from pag_inverse.solvers.base import State, StepOutput
from pag_inverse.solvers.posterior import LARGEST_FACTOR, PosteriorSolver, Renoise, noise_sigma


@settings
class DDNM(PosteriorSolver):
    """x0' = x0 + A^+ (y - A x0), x_{t-1} = sqrt(abar') x0' + gamma (eta n + sqrt(1 - eta^2) eps).

    A^+ = A* (A A* + rho)^-1 with rho = damping sigma^2 / sbar'^2, sbar'^2 = (1 - abar') / abar': at damping 1/4 the
    measurement's noise, which A^+ enlarges by up to 1 / (2 sqrt(rho)), is at most the noise of x_{t-1}. It is in the
    place of the paper's factor lambda, which is meant for an exact A^+. gamma^2 = 1 - abar' - abar' sigma^2, at least
    0 (Wang et al., Eq. 19), makes room for it.

    >>> from pag_inverse import DDNM
    >>> DDNM().eta
    0.85
    """

    eta: Annotated[Unit, Field(description="share of fresh noise in a step (the paper's 0.85)")] = 0.85
    damping: Annotated[NonNegative, Field(le=LARGEST_FACTOR, description="of A^+, in sigma^2 / sbar'^2")] = 0.25
    renoise: Annotated[
        Renoise, Field(description="the eps of the step: that of the corrected x0, the guided, the unguided (CFG++)")
    ] = "guided"

    default_prior: ClassVar[str] = "pixel"
    backward: ClassVar[bool] = False

    def step(
        self, state: State, i: int, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw
    ) -> StepOutput:
        """One step for every image of the batch."""
        x_t, operator, sigma = state.z, problem.operator, noise_sigma(problem)
        prev = float(schedule.abar_prev[i])
        eps = model(x_t, int(schedule.timesteps[i]))  # 1: plain, perturbed, guided
        x0_guided = schedule.predict_x0(x_t, eps.guided, i)
        met = self.met(schedule.predict_x0(x_t, eps.unguided, i), x0_guided)  # 2
        rho = self.damping * sigma**2 * prev / max(1 - prev, 1e-12)
        correction = operator.pinv(problem.y - operator.forward(met), rho)  # 3
        x0 = x0_guided + correction
        gamma = max(1 - prev - prev * sigma**2, 0.0) ** 0.5
        x_prev = prev**0.5 * x0
        if i > 0:  # 4
            chosen = self.eps_of_step(x_t, x0, eps, i, schedule)
            x_prev = x_prev + gamma * (self.eta * draw(tuple(x_t.shape)) + (1 - self.eta**2) ** 0.5 * chosen)
        return StepOutput(State(x_prev), met + correction, problem.residual(met + correction))
