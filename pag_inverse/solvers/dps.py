"""Diffusion posterior sampling (Chung et al., 2023) with PAG, Algorithm 1 of the paper's appendix in pixel space."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import Noise, Operator
from pag_inverse.guidance import Guidance
from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import Schedule, check_spacing
from pag_inverse.solvers.base import (
    Solver,
    StepOutput,
    above_noise,
    check_intervals,
    check_step_limit,
    check_step_scaling,
    check_step_size,
    gradient_weight,
    limited,
    measured_residual,
    norms,
    step_scale,
)

FIXED_VARIANCES = {"fixed_small": 0.0, "fixed_large": 1.0}


class DPS(Solver):
    """x_{t-1} = ddpm_step(x_t, guided eps) - eta grad ||y - A(x0)||, x0 from the unguided eps, clamped to [-1, 1].

    eta: step size (Table 7); variance: of priors that have not learned theirs, `fixed_small` (beta-tilde) or
    `fixed_large` (beta); spacing of the timesteps: `even`, as published, or `quadratic`;
    step_scaling: eta `constant`, as published, or times `sqrt_abar`; noise_floor: the data term rests while
    ||y - A(x0)|| is at most so many sigma sqrt(m), 0 as published; step_limit: `none`, as published, or `noise`, no
    further than to the noise; gradient_interval: the data's gradient at each k-th step only, k times as long, in the
    `early` or `late` half of the steps or `all` (gradient_part).
    """

    def __init__(
        self,
        eta: float,
        *,
        variance: str = "fixed_small",
        spacing: str = "even",
        step_scaling: str = "constant",
        noise_floor: float = 0.0,
        step_limit: str = "none",
        gradient_interval: int = 1,
        gradient_part: str = "all",
    ) -> None:
        if variance not in FIXED_VARIANCES:
            raise ValueError(f"variance is {variance!r}; it must be one of {', '.join(FIXED_VARIANCES)}")
        self.spacing, self.step_scaling = check_spacing(spacing), check_step_scaling(step_scaling)
        self.gradient_interval, self.gradient_part, _ = check_intervals(gradient_interval, gradient_part)
        self.eta, self.fixed_fraction = check_step_size("eta", eta), FIXED_VARIANCES[variance]
        self.noise_floor, self.step_limit = check_step_size("noise_floor", noise_floor), check_step_limit(step_limit)

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        return Schedule.ddpm(prior.betas, steps, self.spacing)

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
        weight = gradient_weight(self.gradient_interval, self.gradient_part, i, len(schedule))  # 0: no graph is held
        x_t = z.detach().requires_grad_(weight > 0)
        with torch.set_grad_enabled(weight > 0):
            eps = guidance(prior, x_t, int(schedule.timesteps[i]))  # 1-3: plain, perturbed, guided
            x0 = schedule.predict_x0(x_t, eps.unguided, i).clamp(-1, 1)  # 4: only this one meets the measurement
            y0 = operator.forward(x0)
            loss = norms(y - y0).sum()  # 6: one norm an image
            grad = torch.autograd.grad(loss, x_t)[0] if weight else torch.zeros_like(x_t)
        x_t = x_t.detach()
        x0_guided = schedule.predict_x0(x_t, eps.guided, i).clamp(-1, 1)
        f = self.fixed_fraction if eps.variance_fraction is None else eps.variance_fraction
        x_prev = schedule.ddpm_step(x_t, x0_guided, i, f, draw(tuple(x_t.shape)) if i > 0 else None)  # 5
        residual = measured_residual(y, y0, operator)
        active = above_noise(residual, self.noise_floor, y, noise, operator)
        left, pull = y - y0.detach(), self.eta * grad
        scale = weight * step_scale(self.step_scaling, schedule, i) * active
        scale = limited(scale, self.step_limit, self.eta, left, noise.sigma, pull, operator.measured(y))
        return StepOutput(x_prev - self.eta * scale * grad, x0.detach(), residual)
