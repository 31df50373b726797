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
from pag_inverse.settings import Count, NonNegative, settings
from pag_inverse.solvers.data_term import every
from pag_inverse.solvers.ldps import LDPS
from pag_inverse.solvers.presets import LATE, Preset


@settings
class PSLD(LDPS):
    """z_{t-1} = ddim_step(z_t, guided eps) - grad(eta ||y - A(D(z0))|| + gamma ||z0 - E(project(D(z0), y))||).

    z0 comes from the unguided eps; nothing is clamped. eta, gamma: Table 5 (the published program's omega is eta).

    >>> from pag_inverse import PSLD
    >>> PSLD(eta=0.15, gamma=0.015, encode="mode").gamma
    0.015
    """

    gamma: Annotated[NonNegative, Field(description="step size of the gluing term (Table 5)")] = 0.1
    encode: Annotated[Literal["sample", "mode"], Field(description="the encoder's posterior in the gluing term")] = (
        "sample"
    )
    encode_interval: Annotated[Count, Field(le=1000, description="the gluing term at each k-th step only")] = 1

    STEP_SIZES: ClassVar[tuple[str, ...]] = ("eta", "gamma")
    PRESETS: ClassVar[Mapping[str, Preset]] = {
        "fast": Preset(100, LATE, step_sizes=2.6),
        "draft": Preset(30, {**LATE, "encode_interval": 2}, step_sizes=2.0),
    }

    def check(self, problem: InverseProblem, prior: Prior) -> None:
        """ValueError for a non-linear operator with gamma above 0."""
        if self.gamma > 0 and not problem.operator.linear:
            raise ValueError("PSLD's gluing term needs a linear operator; set gamma to 0 for this one")

    def _further_gradients(
        self, x: Tensor, z: Tensor, done: int, problem: InverseProblem, model: GuidedModel, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """Those of the gluing term: what was measured from y, the rest from the decoded estimate."""
        gamma = self.gamma * every(self.encode_interval, done)
        if gamma == 0:
            return super()._further_gradients(x, z, done, problem, model, draw)
        encode_draw = draw if self.encode == "sample" else None
        glued = model.encode(problem.operator.project(x, problem.y), encode_draw)
        return torch.autograd.grad(gamma * norms(z - glued).sum(), (x, z), materialize_grads=True)  # type: ignore[return-value]
