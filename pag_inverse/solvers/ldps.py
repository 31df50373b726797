"""Latent diffusion posterior sampling with PAG: PSLD without its gluing term (Rout et al., 2023, Eq. 6)."""

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
from pag_inverse.settings import Unit, settings
from pag_inverse.solvers.base import State, StepOutput
from pag_inverse.solvers.data_term import DataTerm, GradientSolver
from pag_inverse.solvers.presets import LATE, Preset


@settings
class LDPS(GradientSolver):
    """z_{t-1} = ddim_step(z_t, guided eps) - eta grad ||y - A(D(z0))||, z0 from the unguided eps; nothing is clamped.

    The operator may be non-linear.

    >>> from pag_inverse import LDPS
    >>> LDPS(eta=0.5, renoise_prediction=False).eta
    0.5
    """

    renoise_prediction: Annotated[bool, Field(description="fresh noise on A(D(z0)) at each step, as published")] = True
    ddim_eta: Annotated[Unit, Field(description="noise of a DDIM step; 0 is deterministic")] = 0.0
    renoise: Annotated[
        Literal["guided", "unguided"], Field(description="the eps that the step adds again: the guided, or CFG++'s")
    ] = "guided"

    STEP_SIZES: ClassVar[tuple[str, ...]] = ("eta",)
    PRESETS: ClassVar[Mapping[str, Preset]] = {
        "fast": Preset(100, LATE, step_sizes=2.6),
        "draft": Preset(30, LATE, step_sizes=2.0),
    }
    default_prior: ClassVar[str] = "latent"

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The DDIM chain of the published program."""
        return Schedule.ddim(prior.betas, steps, self.spacing)

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
            further_x, further_z = self._further_gradients(x, z, len(schedule) - 1 - i, problem, model, draw)
            whole_x = data_x + further_x
            (grad,) = torch.autograd.grad((x0, z0), z_t, (whole_x, further_z))  # 7
        z0_guided = schedule.predict_x0(z_t.detach(), eps.guided, i)
        renoised = eps.guided if self.renoise == "guided" else eps.unguided.detach()
        z_prev = schedule.ddim_step(z0_guided, renoised, i, self.ddim_eta, ddim_noise)  # 5
        difference = (problem.y - y0).detach()
        data = DataTerm(left.detach() if self.renoise_prediction else difference, difference, problem)
        z_prev = z_prev - self.move(grad, i, schedule, data, self._rate(grad, data_x, whole_x))
        return StepOutput(State(z_prev), x0.detach(), data.residual)

    def _further_gradients(
        self, x: Tensor, z: Tensor, done: int, problem: InverseProblem, model: GuidedModel, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """The gradients of what stands beside the data term, at the image x and at the latent z; none here.

        `done`: the number of steps before this one.
        """
        return torch.zeros_like(x), torch.zeros_like(z)

    def _rate(self, grad: Tensor, data_x: Tensor, whole_x: Tensor) -> Tensor:
        """How fast ||left|| can fall along `grad`, the gradient of all terms, (B,).

        <d, g> <= ||d|| ||g|| for the gradient d of ||left|| and g of the whole. ||d|| is taken at the image, before
        decoder and U-Net, and brought to z_t by the ratio of the whole gradient's lengths: a second pass through the
        decoder is spared, and without a further term it is exact.
        """
        part = norms(data_x) / norms(whole_x).clamp(min=1e-20)
        return norms(grad).square() * part / max(self.eta, 1e-20)
