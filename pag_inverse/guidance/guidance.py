"""Guidance: from a prior's predictions to the eps that moves the sample and the one that meets the measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pag_inverse.priors.base import Prior
from pag_inverse.schedule import T
from pag_inverse.settings.reader import check_interval


@dataclass(frozen=True)
class GuidedEps:
    """`guided` moves the sample and has no graph; `unguided` keeps its graph; f of a learned variance or None."""

    guided: Tensor
    unguided: Tensor
    variance_fraction: Tensor | None


class NoGuidance:
    """The plain prior: guided = unguided = eps."""

    def __init__(self, condition: Tensor | None = None) -> None:
        self.condition = condition

    def __call__(self, prior: Prior, z: Tensor, t: int) -> GuidedEps:
        prediction = prior.predict(z, t, self.condition)
        return GuidedEps(prediction.eps.detach(), prediction.eps, prediction.variance_fraction)


class PerturbedAttentionGuidance:
    """eps + s (eps - eps_hat), Eq. 10, with classifier-free guidance beside it where a condition is given, Eq. 14.

    s: scale, 0 or more; layers: the self-attention layers whose maps become the identity in eps_hat, in the
    checkpoint's or diffusers' words; cfg: 1 is off, the w of Eq. 14 is cfg - 1; condition: the embedding of a prompt,
    and then the unguided eps is eps(c); interval: the lowest and the highest t / 1000 at which s holds, and where it
    does not, s is 0 and there is no perturbed pass.
    """

    def __init__(
        self,
        s: float,
        layers: Sequence[str],
        *,
        cfg: float = 1.0,
        condition: Tensor | None = None,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        for name, value in (("s", s), ("cfg", cfg)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be a number that is not negative")
        if s > 0 and not layers:
            raise ValueError(f"s is {s} but no layer is named; name the self-attention layers to perturb")
        if cfg != 1 and condition is None:
            raise ValueError(f"cfg is {cfg} but there is no prompt; classifier-free guidance needs one")
        self.s, self.layers, self.cfg, self.condition = s, tuple(layers), cfg, condition
        self.interval = check_interval("interval", interval)

    def __call__(self, prior: Prior, z: Tensor, t: int) -> GuidedEps:
        if self.s > 0:
            prior.prepare(self.layers)
        prediction = prior.predict(z, t, self.condition)
        eps = prediction.eps.detach()
        guided = eps
        if self.s > 0 and self._acts(t):  # at once, while what the two passes share is at hand
            guided = guided + self.s * (eps - prior.predict_perturbed(z, t, self.layers, self.condition))
        if self.cfg != 1:
            with torch.no_grad():
                eps_null = prior.predict(z.detach(), t).eps
            guided = guided + (self.cfg - 1) * (eps - eps_null)  # w of Eq. 14 is cfg - 1
        return GuidedEps(guided, prediction.eps, prediction.variance_fraction)

    def _acts(self, t: int) -> bool:
        low, high = self.interval
        return low <= t / T <= high


Guidance = NoGuidance | PerturbedAttentionGuidance
