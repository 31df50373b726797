"""Posterior sampling with latent diffusion (Rout et al., 2023) with PAG, Algorithm 2 of the paper's appendix."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from operators import Noise, Operator
from pag_inverse.guidance.guidance import Guidance
from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import Schedule
from pag_inverse.settings.tables import SolverOptions
from pag_inverse.solvers.base import Solver, StepOutput, check_step_size, norms
from pag_inverse.solvers.data_term import Misfit, every, gradient_weight, step_scale


class PSLD(Solver):
    """z_{t-1} = ddim_step(z_t, guided eps) - grad(eta ||y - A(D(z0))|| + gamma ||z0 - E(project(D(z0), y))||).

    z0 comes from the unguided eps; nothing is clamped. eta, gamma: Table 5 (the published program's omega is eta).
    All options count but `variance`; they begin as published.
    """

    def __init__(self, eta: float, gamma: float, options: SolverOptions = SolverOptions()) -> None:  # noqa: B008
        self.eta, self.gamma = check_step_size("eta", eta), check_step_size("gamma", gamma)
        self.options = options

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        return Schedule.ddim(prior.betas, steps, self.options.spacing)

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
        options, weight = self.options, gradient_weight(self.options, i, len(schedule))  # 0: no graph is held
        z_t = z.detach().requires_grad_(weight > 0)
        ddim_noise = draw(tuple(z.shape)) if options.ddim_eta > 0 else None
        with torch.set_grad_enabled(weight > 0):
            eps = guidance(prior, z_t, int(schedule.timesteps[i]))  # 1-3: plain, perturbed, guided
            z0 = schedule.predict_x0(z_t, eps.unguided, i)  # 4: only this one meets the measurement
        z0_guided = schedule.predict_x0(z_t.detach(), eps.guided, i)
        z_prev = schedule.ddim_step(z0_guided, eps.guided, i, options.ddim_eta, ddim_noise)  # 5
        if not weight:
            return StepOutput(z_prev, None, y.new_full((len(y),), math.nan))
        with torch.enable_grad():
            x0 = prior.decode(z0)
            y0 = operator.forward(x0)
            left = y - (noise(y0, draw) if options.renoise_prediction else y0)
            loss = self.eta * norms(left)
            gamma = self.gamma * every(math.lcm(options.encode_interval, weight), len(schedule) - 1 - i) / weight
            if gamma > 0:  # 7: what was measured from y, the rest from the decoded estimate
                glued = prior.encode(operator.project(x0, y), draw if options.encode == "sample" else None)
                loss = loss + gamma * norms(z0 - glued)
            (grad,) = torch.autograd.grad(loss.sum(), z_t)
        data = Misfit.of(y - y0, operator, noise)
        scale = weight * step_scale(options, schedule, i) * data.above(options.noise_floor)
        if options.step_limit == "noise":
            sigma = noise.sigma * (2**0.5 if options.renoise_prediction else 1)
            scale = replace(data, left=left.detach(), sigma=sigma).limit(scale, self.eta, grad)
        return StepOutput(z_prev - scale * grad, x0.detach(), data.residual)
