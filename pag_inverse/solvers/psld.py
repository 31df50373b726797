"""Posterior sampling with latent diffusion (Rout et al., 2023) with PAG, Algorithm 2 of the paper's appendix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators import Draw
from pag_inverse.guidance import GuidedModel
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem, norms
from pag_inverse.schedule import Schedule
from pag_inverse.settings import Count, NonNegative, Unit, settings
from pag_inverse.solvers.base import State, StepOutput
from pag_inverse.solvers.data_term import DataTerm, GradientSolver, every
from pag_inverse.solvers.presets import LIMITED, Preset

# The noise that PSLD draws into its data term averages out over a thousand steps, and over a hundred does not: without
# it, and with still more steps at the end, a decoder's ill-conditioned gradient has time to meet the measurement.
LATE = {**LIMITED, "spacing": "quartic", "step_scaling": "constant", "renoise_prediction": False}


@settings
class PSLD(GradientSolver):
    """z_{t-1} = ddim_step(z_t, guided eps) - grad(eta ||y - A(D(z0))|| + gamma ||z0 - E(project(D(z0), y))||).

    z0 comes from the unguided eps; nothing is clamped. eta, gamma: Table 5 (the published program's omega is eta).

    >>> from pag_inverse import PSLD
    >>> PSLD(eta=0.15, gamma=0.015, encode="mode").gamma
    0.015
    """

    gamma: Annotated[NonNegative, Field(description="step size of the gluing term (Table 5)")] = 0.1
    renoise_prediction: Annotated[bool, Field(description="fresh noise on A(D(z0)) at each step, as published")] = True
    encode: Annotated[Literal["sample", "mode"], Field(description="the encoder's posterior in the gluing term")] = (
        "sample"
    )
    ddim_eta: Annotated[Unit, Field(description="noise of a DDIM step; 0 is deterministic")] = 0.0
    encode_interval: Annotated[Count, Field(le=1000, description="the gluing term at each k-th step only")] = 1

    STEP_SIZES: ClassVar[tuple[str, ...]] = ("eta", "gamma")
    PRESETS: ClassVar[Mapping[str, Preset]] = {
        "fast": Preset(100, LATE, step_sizes=2.6),
        "draft": Preset(30, {**LATE, "encode_interval": 2}, step_sizes=2.0),
    }
    default_prior: ClassVar[str] = "latent"

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The DDIM chain of the published program."""
        return Schedule.ddim(prior.betas, steps, self.spacing)

    def check(self, problem: InverseProblem, prior: Prior) -> None:
        """ValueError for a non-linear operator with gamma above 0."""
        if self.gamma > 0 and not problem.operator.linear:
            raise ValueError("PSLD's gluing term needs a linear operator; set gamma to 0 for this one")

    def step(
        self, state: State, i: int, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw
    ) -> StepOutput:
        """One step for every image of the batch."""
        z_t = state.z.detach().requires_grad_(True)
        ddim_noise = draw(tuple(z_t.shape)) if self.ddim_eta > 0 else None
        with torch.enable_grad():
            eps = model(z_t, int(schedule.timesteps[i]))  # 1-3: plain, perturbed, guided
            z0 = schedule.predict_x0(z_t, eps.unguided, i)  # 4: only this one meets the measurement
            x0 = model.decode(z0)
            x, z = x0.detach().requires_grad_(True), z0.detach().requires_grad_(True)
            y0 = problem.operator.forward(x)
            left = problem.y - (problem.noise(y0, draw) if self.renoise_prediction else y0)
            (data_x,) = torch.autograd.grad(self.eta * norms(left).sum(), x)
            whole_x, whole_z = data_x, torch.zeros_like(z)
            gamma = self.gamma * every(self.encode_interval, len(schedule) - 1 - i)
            if gamma > 0:  # 7: what was measured from y, the rest from the decoded estimate
                encode_draw = draw if self.encode == "sample" else None
                glued = model.encode(problem.operator.project(x, problem.y), encode_draw)
                glued_x, whole_z = torch.autograd.grad(gamma * norms(z - glued).sum(), (x, z), materialize_grads=True)
                whole_x = data_x + glued_x
            (grad,) = torch.autograd.grad((x0, z0), z_t, (whole_x, whole_z))
        z0_guided = schedule.predict_x0(z_t.detach(), eps.guided, i)
        z_prev = schedule.ddim_step(z0_guided, eps.guided, i, self.ddim_eta, ddim_noise)  # 5
        difference = (problem.y - y0).detach()
        data = DataTerm(left.detach() if self.renoise_prediction else difference, difference, problem)
        z_prev = z_prev - self.move(grad, i, schedule, data, self._rate(grad, data_x, whole_x))
        return StepOutput(State(z_prev), x0.detach(), data.residual)

    def _rate(self, grad: Tensor, data_x: Tensor, whole_x: Tensor) -> Tensor:
        """How fast ||left|| can fall along `grad`, the gradient of both terms, (B,).

        <d, g> <= ||d|| ||g|| for the gradient d of ||left|| and g of the whole. ||d|| is taken at the image, before
        decoder and U-Net, and brought to z_t by the ratio of the whole gradient's lengths: a second pass through the
        decoder is spared, and without a gluing term it is exact.
        """
        part = norms(data_x) / norms(whole_x).clamp(min=1e-20)
        return norms(grad).square() * part / max(self.eta, 1e-20)
