"""DiffPIR: plug-and-play image restoration by half-quadratic splitting (Zhu et al., 2023), with PAG."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from operators import Draw, Operator
from pag_inverse.guidance import GuidedModel
from pag_inverse.problem import InverseProblem
from pag_inverse.schedule import Schedule
from pag_inverse.settings import Unit, settings
from pag_inverse.solvers.base import State, StepOutput
from pag_inverse.solvers.data_term import Spacing
from pag_inverse.solvers.posterior import Factor, PosteriorSolver, noise_sigma

# Of a linear solve without a closed form. 20 and 100 gave the same pictures to 0.01 dB under motion blur: what a solve
# leaves where noise is strong, the next steps take up.
ITERATIONS = 30


@settings
class DiffPIR(PosteriorSolver):
    """x0' = argmin_z ||y - A z||^2 + rho ||z - x0||^2 with rho = lambda sigma^2 / sbar^2, sbar^2 = (1 - abar) / abar;
    x_{t-1} = sqrt(abar') x0' + sqrt(1 - abar') (sqrt(1 - zeta) eps' + sqrt(zeta) n), eps' of x0' (Algorithm 1).

    x0' is the mean of z ~ N(x0, sbar^2 / lambda) given y, which operators that are not linear may have, too.
    `weight` is lambda: 7 for blurs, 15 for super-resolution, 1 for a box (the paper's settings for FFHQ).

    >>> from pag_inverse import DiffPIR
    >>> DiffPIR().zeta
    0.3
    """

    weight: Annotated[Factor, Field(description="lambda: how much the prior counts")] = 7.0
    zeta: Annotated[Unit, Field(description="share of fresh noise in a step")] = 0.3
    spacing: Annotated[Spacing, Field(description="of the timesteps: even, or most of them at little noise")] = (
        "quadratic"
    )

    default_prior: ClassVar[str] = "pixel"
    backward: ClassVar[bool] = False

    @classmethod
    def takes(cls, operator: Operator) -> bool:
        return operator.has_posterior_mean

    def step(
        self, state: State, i: int, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw
    ) -> StepOutput:
        """One step for every image of the batch; the last one leaves the measurement out."""
        x_t, operator = state.z, problem.operator
        abar, prev = float(schedule.abar[i]), float(schedule.abar_prev[i])
        eps = model(x_t, int(schedule.timesteps[i]))  # 1: plain, perturbed, guided
        x0_guided = schedule.predict_x0(x_t, eps.guided, i)
        met = self.met(schedule.predict_x0(x_t, eps.unguided, i), x0_guided)  # 2
        if i == 0:
            return StepOutput(State(x0_guided), met, problem.residual(met))
        variance = (1 - abar) / (self.weight * abar)
        x0_met = operator.posterior_mean(met, problem.y, noise_sigma(problem), variance, iterations=ITERATIONS)  # 3
        x0 = x0_guided + x0_met - met
        chosen = self.eps_of_step(x_t, x0, eps, i, schedule)
        noise = (1 - self.zeta) ** 0.5 * chosen + self.zeta**0.5 * draw(tuple(x_t.shape))
        return StepOutput(State(prev**0.5 * x0 + (1 - prev) ** 0.5 * noise), x0_met, problem.residual(x0_met))  # 4
