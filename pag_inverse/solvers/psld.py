"""Posterior sampling with latent diffusion (Rout et al., 2023) with PAG, Algorithm 2 of the paper's appendix."""

from __future__ import annotations

import math

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
    every,
    gradient_weight,
    limited,
    measured_residual,
    norms,
    step_scale,
)

ENCODINGS = ("sample", "mode")


class PSLD(Solver):
    """z_{t-1} = ddim_step(z_t, guided eps) - grad(eta ||y - A(D(z0))|| + gamma ||z0 - E(project(D(z0), y))||).

    z0 comes from the unguided eps; nothing is clamped. eta, gamma: Table 5 (the published program's omega is eta).
    renoise_prediction: fresh measurement noise on A(D(z0)) before the residual, as published, False for the
    equation; encode: `sample` of the encoder's posterior, as published, or its `mode`; ddim_eta: 0 is deterministic;
    spacing of the timesteps: `even`, as published, or `quadratic`; step_scaling: both step sizes `constant`, as
    published, or times `sqrt_abar`; noise_floor: both terms rest while ||y - A(x0)|| is at most so many sigma sqrt(m),
    0 as published; step_limit: `none`, as published, or `noise`, no further than to the noise; gradient_interval: the
    gradient at each k-th step only, k times as long, in the `early` or `late` half of the steps or `all`
    (gradient_part); encode_interval: the gluing term at each k-th step, k times as strong.
    """

    def __init__(
        self,
        eta: float,
        gamma: float,
        *,
        renoise_prediction: bool = True,
        encode: str = "sample",
        ddim_eta: float = 0.0,
        spacing: str = "even",
        step_scaling: str = "constant",
        noise_floor: float = 0.0,
        step_limit: str = "none",
        gradient_interval: int = 1,
        gradient_part: str = "all",
        encode_interval: int = 1,
    ) -> None:
        if encode not in ENCODINGS:
            raise ValueError(f"encode is {encode!r}; it must be one of {', '.join(ENCODINGS)}")
        self.eta, self.gamma = check_step_size("eta", eta), check_step_size("gamma", gamma)
        self.ddim_eta = check_step_size("ddim_eta", ddim_eta)
        self.noise_floor, self.step_limit = check_step_size("noise_floor", noise_floor), check_step_limit(step_limit)
        self.spacing, self.step_scaling = check_spacing(spacing), check_step_scaling(step_scaling)
        self.renoise_prediction, self.encode = renoise_prediction, encode
        self.gradient_interval, self.gradient_part, self.encode_interval = check_intervals(
            gradient_interval, gradient_part, encode_interval
        )

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        return Schedule.ddim(prior.betas, steps, self.spacing)

    def check(self, operator: Operator) -> None:
        if self.gamma > 0 and not operator.linear:
            raise ValueError("PSLD's gluing term needs a linear operator; set gamma to 0 for this one")

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
        z_t = z.detach().requires_grad_(weight > 0)
        ddim_noise = draw(tuple(z.shape)) if self.ddim_eta > 0 else None
        with torch.set_grad_enabled(weight > 0):
            eps = guidance(prior, z_t, int(schedule.timesteps[i]))  # 1-3: plain, perturbed, guided
            z0 = schedule.predict_x0(z_t, eps.unguided, i)  # 4: only this one meets the measurement
            if weight:
                x0 = prior.decode(z0)
                y0 = operator.forward(x0)
                left = y - (noise(y0, draw) if self.renoise_prediction else y0)
                loss = self.eta * norms(left)
                gamma = self.gamma * every(math.lcm(self.encode_interval, weight), len(schedule) - 1 - i) / weight
                if gamma > 0:  # 7: what was measured from y, the rest from the decoded estimate
                    glued = operator.project(x0, y)
                    loss = loss + gamma * norms(z0 - prior.encode(glued, draw if self.encode == "sample" else None))
                (grad,) = torch.autograd.grad(loss.sum(), z_t)
        z0_guided = schedule.predict_x0(z_t.detach(), eps.guided, i)
        z_prev = schedule.ddim_step(z0_guided, eps.guided, i, self.ddim_eta, ddim_noise)  # 5
        if not weight:
            return StepOutput(z_prev, None, y.new_full((len(y),), math.nan))
        residual, sigma = measured_residual(y, y0, operator), noise.sigma * (2**0.5 if self.renoise_prediction else 1)
        active = above_noise(residual, self.noise_floor, y, noise, operator)
        scale = weight * step_scale(self.step_scaling, schedule, i) * active
        scale = limited(scale, self.step_limit, self.eta, left.detach(), sigma, grad, operator.measured(y))
        return StepOutput(z_prev - scale * grad, x0.detach(), residual)
