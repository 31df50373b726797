"""Moment matching posterior sampling (Rozet et al., 2024), with PAG."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from operators import Draw
from operators.conjugate_gradients import conjugate_gradients
from pag_inverse.guidance import GuidedModel
from pag_inverse.problem import InverseProblem
from pag_inverse.schedule import Schedule
from pag_inverse.settings import Count, Positive, settings
from pag_inverse.solvers.base import State, StepOutput
from pag_inverse.solvers.pigdm import shortened
from pag_inverse.solvers.posterior import DDIMSolver, noise_sigma

ITERATIONS = 30  # of the preconditioner's own conjugate gradients, where the operator has no closed form


@settings
class MMPS(DDIMSolver):
    """x0' = x0 + V A* (A V A* + sigma^2)^-1 (y - A x0), then a DDIM step from x0'.

    V = (1 - abar) / sqrt(abar) d x0 / d x_t is the covariance of the image given x_t: exact for any Gaussian prior with
    no variance above `variance`. What a network makes larger is cut off. Conjugate gradients solve the system: each
    iteration is a backward pass through the network. V = r^2 with v = 1 or less, as PiGDM has it, is their
    preconditioner: without it few iterations leave noise under a blur.

    >>> from pag_inverse import MMPS
    >>> MMPS().iterations
    3
    """

    iterations: Annotated[Count, Field(le=1000, description="of conjugate gradients; each is a backward pass")] = 3
    tolerance: Annotated[float, Field(ge=0, lt=1, description="relative residual at which they stop earlier")] = 1e-3
    variance: Annotated[Positive, Field(description="the largest that the image may have along any direction")] = 10.0
    precondition: Annotated[bool, Field(description="of conjugate gradients, by PiGDM's r^2 in place of V")] = True

    default_prior: ClassVar[str] = "pixel"

    def step(
        self, state: State, i: int, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw
    ) -> StepOutput:
        """One step for every image of the batch."""
        abar, operator, noise_variance = float(schedule.abar[i]), problem.operator, noise_sigma(problem) ** 2
        largest, r2 = (v * (1 - abar) / (v * abar + 1 - abar) for v in (self.variance, min(self.variance, 1.0)))
        x_t = state.z.detach().requires_grad_(True)
        with torch.enable_grad():
            eps = model(x_t, int(schedule.timesteps[i]))  # 1: plain, perturbed, guided
            x0 = schedule.predict_x0(x_t, eps.unguided, i)
        x0_guided = schedule.predict_x0(x_t.detach(), eps.guided, i)
        met = self.met(x0, x0_guided)  # 2: only this one meets the measurement

        def covariance(v: Tensor) -> Tensor:
            (grad,) = torch.autograd.grad(x0, x_t, v, retain_graph=True)
            return shortened((1 - abar) / abar**0.5 * grad, largest * v)

        def inverse(u: Tensor) -> Tensor:
            return operator.solve(u, noise_variance / r2, iterations=ITERATIONS) / r2

        u = conjugate_gradients(  # 3
            lambda u: operator.forward(covariance(operator.adjoint(u))) + noise_variance * u,
            problem.y - operator.forward(met),
            tolerance=self.tolerance,
            iterations=self.iterations,
            precondition=inverse if self.precondition else None,
        )
        correction = covariance(operator.adjoint(u))  # 4
        x_prev = self.move(x_t.detach(), x0_guided + correction, eps, i, schedule, draw)  # 5
        x0 = met + correction
        return StepOutput(State(x_prev), x0, problem.residual(x0))
