"""Perturbed-Attention Guidance and classifier-free guidance, Eqs. 10 and 14 of the paper."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pag_inverse.guidance.combination import Combination
from pag_inverse.guidance.perturbation import Perturbation
from pag_inverse.guidance.perturbations import make_combination, make_perturbation
from pag_inverse.guidance.prefix import PassPairs
from pag_inverse.priors.base import Draw, Prior
from pag_inverse.schedule import T
from pag_inverse.settings import Hyperparameters, check_number


@dataclass(frozen=True)
class GuidedEps:
    """`guided` moves the sample and has no graph; `unguided` keeps its graph; f of a learned variance or None.

    perturbed: eps_hat; signal: what PAG adds to eps, s (eps - eps_hat) after the combination. Both have no graph, and
    are None where no perturbed pass was made.
    """

    guided: Tensor
    unguided: Tensor
    variance_fraction: Tensor | None
    perturbed: Tensor | None = None
    signal: Tensor | None = None


class Guidance(Protocol):
    """From a prior and a state (B, *state) at timestep t to the guided and the unguided eps.

    A guidance that draws random numbers also has `seeded(seeds) -> Guidance`: itself with a seed for each image.
    """

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

    def conditioned(self, condition: Tensor) -> NoGuidance:
        """This guidance under another condition."""
        view = copy.copy(self)
        view.condition = condition
        return view


class PerturbedAttentionGuidance:
    """eps + s (eps - eps_hat), Eq. 10, with classifier-free guidance beside it where a condition is given, Eq. 14.

    s: scale, 0 or more. layers: the self-attention layers that are perturbed in eps_hat, in the checkpoint's or
    diffusers' words. cfg: 1 is off, the w of Eq. 14 is cfg - 1. condition: the embedding (1, L, D) of a prompt; then
    the unguided eps is eps(c). interval: the lowest and the highest t / 1000 at which s holds; outside it s is 0.
    perturbation: one of PERTURBATIONS, spelled ("random_mask:ratio=0.5") or as an object; by default the map becomes
    the identity. combination: what becomes of each difference, "plain" or "apg". adaptive: a of the scale
    s(t) = max(0, s - a (1000 - t)), 0 or more. ValueError: a negative or infinite scale, s without layers, cfg without
    a condition, an unknown perturbation; at the first call a layer that holds no self-attention of the prior.

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
        perturbation: str | Perturbation = "identity",
        combination: str | Combination = "plain",
        adaptive: float = 0.0,
    ) -> None:
        self.s, self.cfg = check_number("s", s), check_number("cfg", cfg)
        self.perturbation, self.combination = make_perturbation(perturbation), make_combination(combination)
        self.adaptive = check_number("adaptive", adaptive)
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
        self.seeds: tuple[int, ...] | None = None  # of each image, for a perturbation that draws
        self._pairs: WeakKeyDictionary[Prior, PassPairs] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @classmethod
    def of_row(
        cls, row: Hyperparameters, *, cfg: float = 1.0, condition: Tensor | None = None
    ) -> PerturbedAttentionGuidance:
        """The guidance of a row of the tables."""
        return cls(
            row.s,
            row.layers,
            cfg=cfg,
            condition=condition,
            interval=row.pag_interval,
            perturbation=row.perturbation,
            combination=row.combination,
            adaptive=row.adaptive_scale,
        )

    def __call__(self, prior: Prior, z: Tensor, t: int) -> GuidedEps:
        s, eps_hat, signal = self.scale(t), None, None
        if s > 0:
            prediction, eps_hat = self._pairs_of(prior)(prior, z, t, self.condition, self.seeds)
            eps = prediction.eps.detach()
            signal = s * self.combination(eps - eps_hat, eps)
            guided = eps + signal  # Eq. 10
        else:
            prediction = prior.predict(z, t, self.condition)
            guided = eps = prediction.eps.detach()
        if self.cfg != 1:
            with torch.no_grad():
                eps_null = prior.predict(z.detach(), t).eps
            guided = guided + (self.cfg - 1) * self.combination(eps - eps_null, eps)  # Eq. 14, whose w is cfg - 1
        return GuidedEps(guided, prediction.eps, prediction.variance_fraction, eps_hat, signal)

    def scale(self, t: int) -> float:
        """s(t) = max(0, s - a (1000 - t)) within the interval, 0 outside."""
        low, high = self.interval
        return max(0.0, self.s - self.adaptive * (T - t)) if low <= t / T <= high else 0.0

    def seeded(self, seeds: Sequence[int]) -> PerturbedAttentionGuidance:
        """This guidance, on the same perturbed networks, for a batch of images with these seeds.

        What a perturbation draws depends on the seed of the image, the timestep and the layer. Without seeds every
        image has seed 0. A perturbation that draws nothing needs none: then it is this guidance itself.
        """
        if not self.perturbation.random:
            return self
        view = copy.copy(self)
        view.seeds, view._pairs, view._lock = tuple(seeds), self._pairs, self._lock
        return view

    def conditioned(self, condition: Tensor) -> PerturbedAttentionGuidance:
        """This guidance, on the same perturbed networks, under another condition."""
        view = copy.copy(self)
        view.condition, view._pairs, view._lock = condition, self._pairs, self._lock
        return view

    def __getstate__(self) -> dict[str, object]:
        kept = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        return kept  # a copy makes perturbed networks of its own

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._pairs, self._lock = WeakKeyDictionary(), threading.Lock()

    def _pairs_of(self, prior: Prior) -> PassPairs:
        with self._lock:
            if prior not in self._pairs:
                self._pairs[prior] = PassPairs(prior, self.layers, self.perturbation)
            return self._pairs[prior]


Watch = Callable[[Tensor, int, GuidedEps], None]


@dataclass(frozen=True)
class GuidedModel:
    """A prior under a guidance: what a solver step sees of the networks.

    `watch(z, t, eps)`, where it is given, is shown what each call gives.

    >>> import torch
    >>> from pag_inverse import GuidedModel, NoGuidance, load_prior
    >>> model = GuidedModel(load_prior("latent"), NoGuidance())
    >>> z = torch.zeros(1, *model.prior.state_shape((3, 64, 64)))
    >>> model(z, 500).guided.shape, model.decode(z).shape
    (torch.Size([1, 8, 16, 16]), torch.Size([1, 3, 64, 64]))
    """

    prior: Prior
    guidance: Guidance
    watch: Watch | None = field(default=None, kw_only=True)

    def __call__(self, z: Tensor, t: int) -> GuidedEps:
        """The guided and the unguided eps of a state (B, *state) at timestep t."""
        eps = self._predict(z, t)
        if self.watch is not None:
            self.watch(z, t, eps)
        return eps

    def _predict(self, z: Tensor, t: int) -> GuidedEps:
        return self.guidance(self.prior, z, t)

    def seeded(self, seeds: Sequence[int]) -> GuidedModel:
        """This model for a batch of images with these seeds, where the guidance draws random numbers."""
        seeded = getattr(self.guidance, "seeded", None)
        return self if seeded is None else replace(self, guidance=seeded(seeds))

    def plain(self, z: Tensor, t: int) -> Tensor:
        """The unguided eps alone, with a graph where autograd records."""
        return self.prior.predict(z, t, getattr(self.guidance, "condition", None)).eps

    def decode(self, z: Tensor) -> Tensor:
        """The image (B, 3, H, W) of a state."""
        return self.prior.decode(z)

    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """The state of an image (B, 3, H, W)."""
        return self.prior.encode(x, draw)
