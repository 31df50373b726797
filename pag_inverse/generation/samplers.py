"""The samplers of Algorithm 1: one reverse step from the guided eps, by DDPM or DDIM."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pag_inverse.guidance import GuidedEps, GuidedModel
from pag_inverse.priors import LatentPrior, Prior
from pag_inverse.priors.base import Draw
from pag_inverse.schedule import Schedule
from pag_inverse.settings import NonNegative, settings
from pag_inverse.solvers.dps import FIXED_FRACTIONS


@dataclass(frozen=True)
class SampleStep:
    """A step of a chain: the next state z, and the x0 and eps that it was made of, (B, *state) each."""

    z: Tensor
    x0: Tensor
    eps: GuidedEps


class Sampler(abc.ABC):
    """A way from x_t to x_{t-1}; its options are a frozen dataclass."""

    clip: bool | None

    @abc.abstractmethod
    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The timesteps that the chain visits."""

    @abc.abstractmethod
    def step(self, z: Tensor, i: int, model: GuidedModel, schedule: Schedule, draw: Draw) -> SampleStep:
        """From the state at index i of the schedule to the next one."""

    def clips(self, prior: Prior) -> bool:
        """Whether x0 is clamped to [-1, 1]: that of pixels, unless `clip` says otherwise."""
        return not isinstance(prior, LatentPrior) if self.clip is None else self.clip


@settings
class DDPM(Sampler):
    """x_{t-1} ~ N(mean(x0, x_t), sigma_t^2), Ho et al. 2020; the variance is learned where the prior has one (ADM).

    `variance`: where the prior has learned none, beta-tilde, beta, or between. `clip`: whether x0 is clamped to
    [-1, 1]; None clamps pixels and leaves latents. There is no noise at t = 0.

    >>> from pag_inverse.generation import DDPM
    >>> DDPM(variance="fixed_large").clip is None
    True
    """

    variance: Literal["fixed_small", "fixed_middle", "fixed_large"] = "fixed_small"
    clip: bool | None = None

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """ADM's respaced chain."""
        return Schedule.ddpm(prior.betas, steps)

    def step(self, z: Tensor, i: int, model: GuidedModel, schedule: Schedule, draw: Draw) -> SampleStep:
        """One step for every image of the batch."""
        eps = model(z, int(schedule.timesteps[i]))  # 1-3: plain, perturbed, guided
        x0 = schedule.predict_x0(z, eps.guided, i)  # 4: from the guided eps
        if self.clips(model.prior):
            x0 = x0.clamp(-1, 1)
        f = FIXED_FRACTIONS[self.variance] if eps.variance_fraction is None else eps.variance_fraction
        noise = draw(tuple(z.shape)) if i > 0 else None
        return SampleStep(schedule.ddpm_step(z, x0, i, f, noise), x0, eps)  # 5


@settings
class DDIM(Sampler):
    """z_{t-1} = sqrt(abar') x0 + sqrt(1 - abar' - sigma^2) eps + sigma n, Song et al. 2021, Eq. 12.

    `eta`: 0 draws no noise, 1 draws as much as DDPM. `clip` as in DDPM; where x0 is clamped, eps is computed anew
    from it, as ADM does. Pixels take ADM's timesteps (0, k, 2 k, ...), latents Stable Diffusion's (1, 1 + k, ...).

    >>> from pag_inverse.generation import DDIM
    >>> DDIM(eta=0.5).eta
    0.5
    """

    eta: NonNegative = 0.0
    clip: bool | None = None

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """ADM's chain for pixels, that of Stable Diffusion for latents."""
        chain = Schedule.ddim if isinstance(prior, LatentPrior) else Schedule.ddim_pixels
        return chain(prior.betas, steps)

    def step(self, z: Tensor, i: int, model: GuidedModel, schedule: Schedule, draw: Draw) -> SampleStep:
        """One step for every image of the batch."""
        eps = model(z, int(schedule.timesteps[i]))  # 1-3: plain, perturbed, guided
        x0, along = schedule.predict_x0(z, eps.guided, i), eps.guided  # 4
        if self.clips(model.prior):
            abar, x0 = float(schedule.abar[i]), x0.clamp(-1, 1)
            along = (z - abar**0.5 * x0) / (1 - abar) ** 0.5
        noise = draw(tuple(z.shape)) if self.eta > 0 else None
        return SampleStep(schedule.ddim_step(x0, along, i, self.eta, noise), x0, eps)  # 5


SAMPLERS: Mapping[str, type[Sampler]] = {"ddpm": DDPM, "ddim": DDIM}
