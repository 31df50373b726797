"""RED-diff, regularisation by denoising diffusion (Mardani et al., 2023), with PAG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators import Draw
from pag_inverse.guidance import GuidedModel
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem
from pag_inverse.schedule import Schedule
from pag_inverse.settings import NonNegative, Positive, Unit, settings
from pag_inverse.solvers.base import Solver, State, StepOutput
from pag_inverse.solvers.data_term import Spacing, data_gradient

BETA_1, BETA_2 = 0.9, 0.99  # of Adam
INITIAL_DAMPING = 0.01  # of the pseudo-inverse of y


@dataclass(frozen=True)
class RedDiffState(State):
    """The image mu, as z, with Adam's moments: tensors like it."""

    first: Tensor
    second: Tensor


@settings
class REDdiff(Solver):
    """Adam on mu with the gradient of weight sbar <stopgrad(eps - n), mu> + ||y - A(mu)||^2 / 2, both as means.

    eps is the network's at x_t = sqrt(abar) mu + sqrt(1 - abar) n, n fresh noise, and sbar = SNR^-1/2 =
    sqrt((1 - abar) / abar) (Algorithm 1). t falls along the chain. The operator may be non-linear. No graph goes
    through the network.

    >>> from pag_inverse import REDdiff
    >>> REDdiff(lr=0.5).weight
    0.25
    """

    lr: Annotated[Positive, Field(description="of Adam, in images of [-1, 1]")] = 0.1
    lr_ratio: Annotated[Unit, Field(description="of lr, at the last step; between it falls linearly")] = 1.0
    weight: Annotated[NonNegative, Field(description="lambda, of the prior's term")] = 0.25
    start_from: Annotated[
        Literal["pinv", "adjoint", "normal"],
        Field(description="the first mu: from y, or a standard normal; non-linear operators take the normal"),
    ] = "pinv"
    prior_eps: Annotated[Literal["guided", "unguided"], Field(description="the eps of the prior's term")] = "guided"
    spacing: Annotated[Spacing, Field(description="of the timesteps: even, or most of them at little noise")] = "even"

    default_prior: ClassVar[str] = "pixel"
    backward: ClassVar[bool] = False
    pixel_only: ClassVar[bool] = True

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The respaced DDPM chain."""
        return Schedule.ddpm(prior.betas, steps, self.spacing)

    def start(self, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw) -> RedDiffState:
        """The first mu, and moments of zero."""
        mu = super().start(problem, model, schedule, draw).z
        if self.start_from != "normal" and problem.operator.linear:
            known = self.start_from == "pinv"
            operator, y = problem.operator, problem.y
            mu = (operator.pinv(y, INITIAL_DAMPING) if known else operator.adjoint(y)).clamp(-1, 1)
        return RedDiffState(mu, torch.zeros_like(mu), torch.zeros_like(mu))

    def step(
        self, state: State, i: int, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw
    ) -> StepOutput:
        """One step of Adam for every image of the batch."""
        assert isinstance(state, RedDiffState)
        mu, abar, n = state.z, float(schedule.abar[i]), draw(tuple(state.z.shape))
        eps = model(abar**0.5 * mu + (1 - abar) ** 0.5 * n, int(schedule.timesteps[i]))  # 1: plain, perturbed, guided
        chosen = eps.guided if self.prior_eps == "guided" else eps.unguided
        prior_grad = self.weight * schedule.sigma(i) * (chosen - n)  # 2: regularisation by denoising
        grad = prior_grad + mu[0].numel() / problem.y[0].numel() * data_gradient(problem, mu)  # 3
        first = BETA_1 * state.first + (1 - BETA_1) * grad  # 4: Adam
        second = BETA_2 * state.second + (1 - BETA_2) * grad.square()
        k, last = len(schedule) - i, max(1, len(schedule) - 1)
        root = (second / (1 - BETA_2**k)).sqrt()
        rate = self.lr * (self.lr_ratio + (1 - self.lr_ratio) * i / last)
        mu = mu - rate * first / (1 - BETA_1**k) / (root + 1e-8)
        return StepOutput(RedDiffState(mu, first, second), mu, problem.residual(mu))
