"""Diffusion posterior sampling (Chung et al., 2023) with PAG, Algorithm 1 of the paper's appendix in pixel space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from operators import Draw
from pag_inverse.guidance import GuidedModel
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem, norms
from pag_inverse.schedule import Schedule
from pag_inverse.settings import settings
from pag_inverse.solvers.base import State, StepOutput
from pag_inverse.solvers.data_term import DataTerm, GradientSolver
from pag_inverse.solvers.presets import LIMITED, Preset

# Of beta in a variance between beta-tilde and beta, as a learned one has it (Improved DDPM, equation 15).
FIXED_FRACTIONS = {"fixed_small": 0.0, "fixed_middle": 0.5, "fixed_large": 1.0}


@settings
class DPS(GradientSolver):
    """x_{t-1} = ddpm_step(x_t, guided eps) - eta grad ||y - A(x0)||, x0 from the unguided eps, clamped to [-1, 1].

    eta: step size (Table 7). `variance` is for priors that have not learned one.

    >>> from dataclasses import replace
    >>> from pag_inverse import DPS
    >>> replace(DPS(eta=1.0), spacing="quadratic").spacing
    'quadratic'
    """

    variance: Annotated[
        Literal["fixed_small", "fixed_middle", "fixed_large"],
        Field(description="of a step where the prior has learned none: beta-tilde, beta, or between"),
    ] = "fixed_small"

    STEP_SIZES: ClassVar[tuple[str, ...]] = ("eta",)
    PRESETS: ClassVar[Mapping[str, Preset]] = {"fast": Preset(100, LIMITED), "draft": Preset(30, LIMITED)}
    default_prior: ClassVar[str] = "pixel"
    pixel_only: ClassVar[bool] = True

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The respaced DDPM chain."""
        return Schedule.ddpm(prior.betas, steps, self.spacing)

    def step(
        self, state: State, i: int, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw
    ) -> StepOutput:
        """One step for every image of the batch."""
        x_t = state.z.detach().requires_grad_(True)
        with torch.enable_grad():
            eps = model(x_t, int(schedule.timesteps[i]))  # 1-3: plain, perturbed, guided
            x0 = schedule.predict_x0(x_t, eps.unguided, i).clamp(-1, 1)  # 4: only this one meets the measurement
            left = problem.y - problem.operator.forward(x0)
            loss = self.eta * norms(left).sum()  # 6: one norm an image
            (grad,) = torch.autograd.grad(loss, x_t)
        x_t = x_t.detach()
        x0_guided = schedule.predict_x0(x_t, eps.guided, i).clamp(-1, 1)
        f = FIXED_FRACTIONS[self.variance] if eps.variance_fraction is None else eps.variance_fraction
        x_prev = schedule.ddpm_step(x_t, x0_guided, i, f, draw(tuple(x_t.shape)) if i > 0 else None)  # 5
        left = left.detach()
        data = DataTerm(left, left, problem)
        rate = norms(grad).square() / max(self.eta, 1e-20)
        x_prev = x_prev - self.move(grad, i, schedule, data, rate)
        return StepOutput(State(x_prev), x0.detach(), data.residual)
