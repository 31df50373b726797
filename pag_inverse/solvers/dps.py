"""Diffusion posterior sampling (Chung et al., 2023) with PAG, Algorithm 1 of the paper's appendix in pixel space."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import Noise, Operator
from pag_inverse.guidance.guidance import Guidance
from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import Schedule
from pag_inverse.settings.tables import SolverOptions
from pag_inverse.solvers.base import Solver, StepOutput, check_step_size, norms
from pag_inverse.solvers.data_term import Misfit, gradient_weight, step_scale

# Of beta in a variance between beta-tilde and beta, as a learned one has it (Improved DDPM, equation 15).
FIXED_FRACTIONS = {"fixed_small": 0.0, "fixed_middle": 0.5, "fixed_large": 1.0}


class DPS(Solver):
    """x_{t-1} = ddpm_step(x_t, guided eps) - eta grad ||y - A(x0)||, x0 from the unguided eps, clamped to [-1, 1].

    eta: step size (Table 7). Of the options those for both solvers count, and `variance`; they begin as published.
    """

    def __init__(self, eta: float, options: SolverOptions = SolverOptions()) -> None:  # noqa: B008 - it is frozen
        self.eta, self.options = check_step_size("eta", eta), options

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        return Schedule.ddpm(prior.betas, steps, self.options.spacing)

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
        weight = gradient_weight(self.options, i, len(schedule))  # 0: no graph is held
        x_t = z.detach().requires_grad_(weight > 0)
        with torch.set_grad_enabled(weight > 0):
            eps = guidance(prior, x_t, int(schedule.timesteps[i]))  # 1-3: plain, perturbed, guided
            x0 = schedule.predict_x0(x_t, eps.unguided, i).clamp(-1, 1)  # 4: only this one meets the measurement
            left = y - operator.forward(x0)
            loss = self.eta * norms(left).sum()  # 6: one norm an image
            grad = torch.autograd.grad(loss, x_t)[0] if weight else torch.zeros_like(x_t)
        x0_guided = schedule.predict_x0(x_t.detach(), eps.guided, i).clamp(-1, 1)
        f = FIXED_FRACTIONS[self.options.variance] if eps.variance_fraction is None else eps.variance_fraction
        x_prev = schedule.ddpm_step(x_t.detach(), x0_guided, i, f, draw(tuple(z.shape)) if i > 0 else None)  # 5
        data = Misfit.of(left, operator, noise)
        scale = weight * step_scale(self.options, schedule, i) * data.above(self.options.noise_floor)
        if self.options.step_limit == "noise":
            scale = data.limit(scale, self.eta, grad)
        return StepOutput(x_prev - scale * grad, x0.detach(), data.residual)
