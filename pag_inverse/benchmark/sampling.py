"""An iteration of sampling under each guidance, as in the paper's Table 6: eps and a DDIM step, without a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pag_inverse.benchmark.case import Case
from pag_inverse.benchmark.steps import PLACE, STEPS, Part, make_prior
from pag_inverse.guidance import Guidance, GuidedModel, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import Prior
from pag_inverse.runtime.streams import batch_draw
from pag_inverse.schedule import Schedule

SCALE, CFG = 2.0, 7.5  # an iteration costs the same at any scale
MIDDLE = "mid_block"


class Sampling:
    """A case's prior and state. Layers are those of the middle block, as in the paper's sampling."""

    def __init__(self, case: Case) -> None:
        self.case, self.prior = case, make_prior(case)
        layers = [layer.diffusers for layer in self.prior.layers()]
        self.layers = [layer for layer in layers if layer.startswith(MIDDLE)] or layers[:1]
        self.schedule = Schedule.ddim(self.prior.betas, STEPS)
        draw = batch_draw(list(range(case.batch)), torch.device(case.device))
        self.z = draw((case.batch, *self.prior.state_shape((3, case.size, case.size))))

    def parts(self, names: Sequence[str]) -> dict[str, Part]:
        """An iteration under each guidance that the prior can have; CFG needs a network that takes a prompt."""
        condition = prompt_like(self.prior)
        found: dict[str, Guidance] = {
            "none": NoGuidance(),
            "pag": PerturbedAttentionGuidance(SCALE, self.layers),
            "seg": PerturbedAttentionGuidance(SCALE, self.layers, perturbation="seg"),
        }
        if condition is not None:
            found["cfg"] = PerturbedAttentionGuidance(0.0, [], cfg=CFG, condition=condition)
            found["cfg_pag"] = PerturbedAttentionGuidance(SCALE, self.layers, cfg=CFG, condition=condition)
        return {name: self._iteration(found[name]) for name in names if name in found}

    def _iteration(self, guidance: Guidance) -> Part:
        model, t = GuidedModel(self.prior, guidance), int(self.schedule.timesteps[PLACE])

        @torch.no_grad()
        def step() -> Tensor:
            eps = model(self.z, t).guided
            return self.schedule.ddim_step(self.schedule.predict_x0(self.z, eps, PLACE), eps, PLACE, 0.0, None)

        return step


def prompt_like(prior: Prior) -> Tensor | None:
    """A random embedding of the shape of a prompt's; None for a network without prompts."""
    empty = getattr(prior, "empty", None)
    if empty is None:
        return None
    return torch.randn(empty.shape, generator=torch.Generator().manual_seed(0)).to(empty)
