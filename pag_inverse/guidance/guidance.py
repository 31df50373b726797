"""Perturbed-Attention Guidance and classifier-free guidance, Eqs. 10 and 14 of the paper."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pag_inverse.guidance.prefix import PassPairs
from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import T
from pag_inverse.settings import check_number


@dataclass(frozen=True)
class GuidedEps:
    """`guided` moves the sample and has no graph; `unguided` keeps its graph; f of a learned variance or None."""

    guided: Tensor
    unguided: Tensor
    variance_fraction: Tensor | None


class Guidance(Protocol):
    """From a prior and a state (B, *state) at timestep t to the guided and the unguided eps."""

    def __call__(self, prior: Prior, z: Tensor, t: int) -> GuidedEps: ...


class NoGuidance:
    """The plain prior: guided = unguided = eps. `condition`: the embedding (1, L, D) of a prompt, or None.

    >>> import torch
    >>> from pag_inverse import NoGuidance, load_prior
    >>> eps = NoGuidance()(load_prior("pixel"), torch.zeros(1, 3, 64, 64), 500)
    >>> bool((eps.guided == eps.unguided).all())
    True
    """

    def __init__(self, condition: Tensor | None = None) -> None:
        self.condition = condition

    def __call__(self, prior: Prior, z: Tensor, t: int) -> GuidedEps:
        prediction = prior.predict(z, t, self.condition)
        return GuidedEps(prediction.eps.detach(), prediction.eps, prediction.variance_fraction)


class PerturbedAttentionGuidance:
    """eps + s (eps - eps_hat), Eq. 10, with classifier-free guidance beside it where a condition is given, Eq. 14.

    s: scale, 0 or more. layers: the self-attention layers whose maps become the identity in eps_hat, in the
    checkpoint's or diffusers' words. cfg: 1 is off, the w of Eq. 14 is cfg - 1. condition: the embedding (1, L, D) of
    a prompt; then the unguided eps is eps(c). interval: the lowest and the highest t / 1000 at which s holds; outside
    it s is 0. ValueError: a negative or infinite scale, s without layers, cfg without a condition; at the first call a
    layer that holds no self-attention of the prior.

    The guidance owns the perturbed networks, which share the prior's weights. It can be used by several threads.

    >>> import torch
    >>> from pag_inverse import PerturbedAttentionGuidance, load_prior
    >>> guidance = PerturbedAttentionGuidance(2.0, ["up_blocks.1.attentions.1"])
    >>> eps = guidance(load_prior("pixel"), torch.zeros(1, 3, 64, 64), 500)
    >>> bool((eps.guided != eps.unguided).any())
    True
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
        self.s, self.cfg = check_number("s", s), check_number("cfg", cfg)
        if s > 0 and not layers:
            raise ValueError(f"s is {s} but no layer is named; name the self-attention layers to perturb")
        if cfg != 1 and condition is None:
            raise ValueError(f"cfg is {cfg} but there is no prompt; classifier-free guidance needs one")
        if len(interval) != 2:
            raise ValueError(f"interval is {interval}; it must be two numbers, the lower one first")
        low, high = (check_number("interval", value, maximum=1.0) for value in interval)
        if not low <= high:
            raise ValueError(f"interval is {low:g} to {high:g}; the lower number must come first")
        self.layers, self.condition, self.interval = tuple(layers), condition, (low, high)
        self._pairs: WeakKeyDictionary[Prior, PassPairs] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, prior: Prior, z: Tensor, t: int) -> GuidedEps:
        if self.s > 0 and self._acts(t):
            prediction, eps_hat = self._pairs_of(prior)(prior, z, t, self.condition)
            eps = prediction.eps.detach()
            guided = eps + self.s * (eps - eps_hat)  # Eq. 10
        else:
            prediction = prior.predict(z, t, self.condition)
            guided = eps = prediction.eps.detach()
        if self.cfg != 1:
            with torch.no_grad():
                eps_null = prior.predict(z.detach(), t).eps
            guided = guided + (self.cfg - 1) * (eps - eps_null)  # Eq. 14, whose w is cfg - 1
        return GuidedEps(guided, prediction.eps, prediction.variance_fraction)

    def __getstate__(self) -> dict[str, object]:
        kept = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        return kept  # a copy makes perturbed networks of its own

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._pairs, self._lock = WeakKeyDictionary(), threading.Lock()

    def _pairs_of(self, prior: Prior) -> PassPairs:
        with self._lock:
            if prior not in self._pairs:
                self._pairs[prior] = PassPairs(prior, self.layers)
            return self._pairs[prior]

    def _acts(self, t: int) -> bool:
        low, high = self.interval
        return low <= t / T <= high


@dataclass(frozen=True)
class GuidedModel:
    """A prior under a guidance: what a solver step sees of the networks.

    >>> import torch
    >>> from pag_inverse import GuidedModel, NoGuidance, load_prior
    >>> model = GuidedModel(load_prior("latent"), NoGuidance())
    >>> z = torch.zeros(1, *model.prior.state_shape((3, 64, 64)))
    >>> model(z, 500).guided.shape, model.decode(z).shape
    (torch.Size([1, 8, 16, 16]), torch.Size([1, 3, 64, 64]))
    """

    prior: Prior
    guidance: Guidance

    def __call__(self, z: Tensor, t: int) -> GuidedEps:
        """The guided and the unguided eps of a state (B, *state) at timestep t."""
        return self.guidance(self.prior, z, t)

    def plain(self, z: Tensor, t: int) -> Tensor:
        """The unguided eps alone, with a graph where autograd records."""
        return self.prior.predict(z, t, getattr(self.guidance, "condition", None)).eps

    def decode(self, z: Tensor) -> Tensor:
        """The image (B, 3, H, W) of a state."""
        return self.prior.decode(z)

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """The state of an image (B, 3, H, W)."""
        return self.prior.encode(x, draw)
