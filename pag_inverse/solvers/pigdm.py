"""Pseudoinverse-guided diffusion (Song et al., 2023), its form for noisy measurements, with PAG."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from operators import Draw
from pag_inverse.guidance import GuidedModel
from pag_inverse.problem import InverseProblem, norms
from pag_inverse.schedule import Schedule
from pag_inverse.settings import settings
from pag_inverse.solvers.base import State, StepOutput
from pag_inverse.solvers.posterior import DDIMSolver, Factor, noise_sigma


@settings
class PiGDM(DDIMSolver):
    """x0' = x0 + J^T A* (r^2 A A* + sigma^2)^-1 (y - A x0), then a DDIM step from x0'.

    J = (1 - abar) / sqrt(abar) d x0 / d x_t is the covariance of the image given x_t. r^2 = v sbar^2 / (v + sbar^2)
    with sbar^2 = (1 - abar) / abar is its value under a Gaussian prior of variance v: exact for such a prior.

    A step from x0', which is a mean, leaves out the variance V = r^2 - r^2 A* (A A* + sigma^2 / r^2)^-1 A around it.
    The samples become a little narrow: the more, the fewer steps there are. `draw_x0` takes the step from a draw of
    N(x0', V), which for a Gaussian prior of variance v samples its posterior in any number of steps.

    >>> from pag_inverse import PiGDM
    >>> PiGDM().ddim_eta
    1.0
    """

    jacobian: Annotated[bool, Field(description="J by autograd; false takes r^2 in its place: no graph")] = True
    weight: Annotated[Factor, Field(description="lambda: divides r^2, so that the data counts less")] = 1.0
    variance: Annotated[Factor, Field(description="v of r^2 = v sbar^2 / (v + sbar^2)")] = 1.0
    draw_x0: Annotated[bool, Field(description="x0' drawn from its Gaussian, not its mean: wider samples")] = False

    default_prior: ClassVar[str] = "pixel"

    def step(
        self, state: State, i: int, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw
    ) -> StepOutput:
        """One step for every image of the batch."""
        abar, operator = float(schedule.abar[i]), problem.operator
        r2 = self.variance * (1 - abar) / (self.variance * abar + 1 - abar) / self.weight
        x_t = state.z.detach().requires_grad_(self.jacobian)
        with torch.set_grad_enabled(self.jacobian):
            eps = model(x_t, int(schedule.timesteps[i]))  # 1: plain, perturbed, guided
            x0 = schedule.predict_x0(x_t, eps.unguided, i)
        x0_guided = schedule.predict_x0(x_t.detach(), eps.guided, i)
        met = self.met(x0, x0_guided)  # 2: only this one meets the measurement
        u = operator.solve(problem.y - operator.forward(met), noise_sigma(problem) ** 2 / r2)  # 3
        correction = operator.adjoint(u)
        if self.jacobian:  # 4
            (grad,) = torch.autograd.grad(x0, x_t, correction)
            correction = shortened((1 - abar) / abar**0.5 / r2 * grad, correction)
        x0_met = x0_guided + correction
        if self.draw_x0:
            x0_met = x0_met + deviation(problem, r2, x0_met, draw)
        x_prev = self.move(x_t.detach(), x0_met, eps, i, schedule, draw)  # 5
        x0 = met + correction
        return StepOutput(State(x_prev), x0, problem.residual(x0))


def deviation(problem: InverseProblem, r2: float, x0: Tensor, draw: Draw) -> Tensor:
    """A draw of N(0, V), V = r^2 - r^2 A* (A A* + sigma^2 / r^2)^-1 A, like x0: perturb and solve.

    w - A* (A A* + sigma^2 / r^2)^-1 (A w + n) for w of variance r^2 and n of sigma^2 (Papandreou and Yuille, 2010).
    """
    sigma = noise_sigma(problem)
    w = r2**0.5 * draw(tuple(x0.shape))
    n = sigma * draw(tuple(problem.y.shape))
    return w - problem.operator.pinv(problem.operator.forward(w) + n, sigma**2 / r2)


def shortened(correction: Tensor, longest: Tensor) -> Tensor:
    """`correction`, each image's made no longer than that of `longest`.

    J is at most r^2 where the variance of the image given x_t is. A network's Jacobian may be far larger where noise
    is strong: x0 is eps divided by sqrt(abar) = 0.006.
    """
    factor = norms(longest) / norms(correction).clamp(min=1e-20)
    return correction * factor.clamp(max=1)[:, None, None, None]
