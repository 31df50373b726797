"""Score distillation: an image, or what it was rendered from, is moved to where the guided score is 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pag_inverse.guidance.guidance import Guidance, GuidedModel, PerturbedAttentionGuidance
from pag_inverse.priors.base import Prior
from pag_inverse.runtime.streams import batch_draw, stream_seed
from pag_inverse.schedule import T
from pag_inverse.settings import check_choice, check_number, check_whole

SCALE = 100.0  # s of PAG, and with a prompt cfg too: Ahn et al., 2024, App. C.3
Weighting = Literal["variance", "uniform"]
WEIGHTINGS = ("variance", "uniform")


class ScoreDistillation:
    """The loss of score distillation sampling (Poole et al., 2023, Eq. 3) with a guided score (Ahn et al., 2024, C.3).

    dL/dz = w(t) (eps_guided(z_t, t) - eps) / B with z_t = sqrt(abar) z + sqrt(1 - abar) eps, of B states z, and by the
    chain rule of whatever z was made of: pictures through the prior's encoder, a scene through its renderer. eps_guided
    is that of Eq. 10, or Eq. 14 with a prompt. The network has no graph. t and eps are drawn anew in every step.

    guidance: any; `of_paper` takes PAG with the paper's scales. interval: the lowest and
    the highest t / 1000. weighting: w(t) = 1 - abar ("variance") or 1 ("uniform"). seed: of t and eps; an image's
    depend on the seed, its name and the step alone. ValueError: an interval or a weighting that is none.

    >>> import torch
    >>> from pag_inverse import load_prior
    >>> from pag_inverse.guidance import ScoreDistillation
    >>> distillation = ScoreDistillation.of_paper(load_prior("pixel"), ["up_blocks.1.attentions.1"])
    >>> picture = torch.zeros(1, 3, 64, 64, requires_grad=True)  # of a renderer, in [-1, 1]
    >>> distillation(picture, step=0).backward()
    >>> picture.grad.shape
    torch.Size([1, 3, 64, 64])
    """

    def __init__(
        self,
        prior: Prior,
        guidance: Guidance,
        *,
        interval: tuple[float, float] = (0.02, 0.98),
        weighting: Weighting = "variance",
        seed: int = 0,
    ) -> None:
        low, high = (check_number("interval", value, maximum=1.0) for value in interval)
        if low > high:
            raise ValueError(f"interval is {low:g} to {high:g}; the lower number must come first")
        self.model, self.interval = GuidedModel(prior, guidance), (low, high)
        self.weighting, self.seed = check_choice("weighting", weighting, WEIGHTINGS), check_whole("seed", seed)
        self.abar = np.cumprod(1.0 - prior.betas)

    @classmethod
    def of_paper(cls, prior: Prior, layers: Sequence[str], condition: Tensor | None = None) -> ScoreDistillation:
        """With the paper's scales: s = 100, and with the embedding (1, L, D) of a prompt cfg = 100 too (App. C.3)."""
        cfg = 1.0 if condition is None else SCALE
        return cls(prior, PerturbedAttentionGuidance(SCALE, layers, cfg=cfg, condition=condition))

    def __call__(self, x: Tensor, step: int, *, names: Sequence[str] | None = None, latent: bool = False) -> Tensor:
        """The loss of pictures x (B, 3, H, W) in [-1, 1], or with `latent` of the prior's states (B, *state): a scalar.

        Its value says nothing of how good x is: only its gradient is meant. `step` numbers the
        calls; `names` key the random streams, by default "0", "1", ...: views of one scene may have one name each.
        ValueError: sides that the prior does not take, names that do not fit.
        """
        names = [str(b) for b in range(len(x))] if names is None else list(names)
        if len(names) != len(x):
            raise ValueError(f"{len(x)} images need as many names, not {len(names)}")
        z = x if latent else self._encoded(x)
        gradient = torch.cat([self.gradient(one[None], step, name) for one, name in zip(z, names, strict=True)])
        return 0.5 * (z - (z - gradient).detach()).square().sum() / len(z)

    @torch.no_grad()
    def gradient(self, z: Tensor, step: int, name: str = "0") -> Tensor:
        """w(t) (eps_guided(z_t, t) - eps) of one state (1, *state), with the t and the eps of this step."""
        t, eps = self.drawn(step, name, tuple(z.shape))
        abar, eps = float(self.abar[t]), eps.to(z)
        z_t = abar**0.5 * z.detach() + (1 - abar) ** 0.5 * eps
        weight = 1 - abar if self.weighting == "variance" else 1.0
        model = self.model.seeded([stream_seed(self.seed, name, "sampling", step)])
        return weight * (model(z_t, t).guided - eps)

    def drawn(self, step: int, name: str, shape: tuple[int, ...]) -> tuple[int, Tensor]:
        """The t of an image in a step, uniform in the interval, and its eps."""
        check_whole("step", step)
        seed = stream_seed(self.seed, name, "sampling", step)
        low, high = (round(T * share) for share in self.interval)
        t = int(np.random.default_rng(seed).integers(low, min(high, T - 1) + 1))
        return t, batch_draw([seed])(shape)

    def _encoded(self, x: Tensor) -> Tensor:
        self.model.prior.state_shape((3, int(x.shape[2]), int(x.shape[3])))
        return self.model.encode(x)
