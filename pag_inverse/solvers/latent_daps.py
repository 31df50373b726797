"""Decoupled annealing posterior sampling in the latent (Zhang et al., 2024, LatentDAPS) with PAG."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pag_inverse.guidance import GuidedModel
from pag_inverse.problem import InverseProblem
from pag_inverse.settings import Count, Positive, settings
from pag_inverse.solvers.daps import DAPS


@settings
class LatentDAPS(DAPS):
    """DAPS on a latent z: Langevin steps follow the gradient of ||y - A(D(z))||^2 / 2 through the decoder.

    The decoder's gain is part of the operator's, and not known: an lr that suits DAPS may diverge here. A quarter of it
    did not with the embedded prior.

    >>> from pag_inverse import LatentDAPS
    >>> LatentDAPS(langevin_steps=5).sigma_max
    10.0
    """

    ode_steps: Annotated[Count, Field(le=1000, description="Euler steps of the ODE, a pass of the network each")] = 2
    sigma_max: Annotated[Positive, Field(description="the largest noise level, of latents")] = 10.0

    default_prior: ClassVar[str] = "latent"
    pixel_only: ClassVar[bool] = False

    def _gain(self, problem: InverseProblem) -> Tensor:
        """Not known: the decoder is part of the operator."""
        return problem.y.new_zeros(len(problem))

    def _data_gradient(self, x: Tensor, problem: InverseProblem, model: GuidedModel) -> Tensor:
        """The gradient of ||y - A(D(x))||^2 / 2 at latents x."""
        with torch.enable_grad():
            z = x.detach().requires_grad_(True)
            left = problem.operator.forward(model.decode(z)) - problem.y
            (grad,) = torch.autograd.grad(left.square().sum() / 2, z)
        return grad
