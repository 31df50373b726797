"""Classifier-free guidance from two networks that were trained separately, Fig. 41 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pag_inverse.guidance import Guidance, GuidedEps
from pag_inverse.priors import Prior
from pag_inverse.settings import check_number


class TwoModelGuidance:
    """eps + (cfg - 1) (eps_theta(c) - eps_phi): phi is an unconditional network of its own.

    guidance: gives eps and eps_theta(c) by the conditional prior, with PAG or without. unconditional: phi, which must
    have the states and the betas of the conditional prior. cfg: 1 is off. ValueError: a negative or infinite cfg, and
    at a call a prior of another kind.
    """

    def __init__(self, guidance: Guidance, unconditional: Prior, cfg: float) -> None:
        self.guidance, self.unconditional, self.cfg = guidance, unconditional, check_number("cfg", cfg)

    def seeded(self, seeds: Sequence[int]) -> TwoModelGuidance:
        """This guidance for a batch of images with these seeds, where the inner one draws random numbers."""
        seeded = getattr(self.guidance, "seeded", None)
        return self if seeded is None else TwoModelGuidance(seeded(seeds), self.unconditional, self.cfg)

    def conditioned(self, condition: Tensor) -> TwoModelGuidance:
        """This guidance with the conditional prior under another condition."""
        return TwoModelGuidance(conditioned(self.guidance, condition), self.unconditional, self.cfg)

    def __call__(self, prior: Prior, z: Tensor, t: int) -> GuidedEps:
        found = self.guidance(prior, z, t)
        with torch.no_grad():
            null = self.unconditional.predict(z.detach(), t).eps
        guided = found.guided + (self.cfg - 1) * (found.unguided.detach() - null)
        return replace(found, guided=guided)


def conditioned(guidance: Guidance, condition: Tensor | None) -> Guidance:
    """A guidance under the condition of a batch; ValueError where it takes none."""
    if condition is None:
        return guidance
    under: Callable[[Tensor], Guidance] | None = getattr(guidance, "conditioned", None)
    if under is None:
        raise ValueError(f"a {type(guidance).__name__} has no method conditioned; prompts and classes need one")
    return under(condition)
