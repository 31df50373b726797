"""Passes of a prior's networks, counted as they happen: each call, and each backward pass through a call."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from operators import Draw
from pag_inverse.guidance import Guidance, GuidedModel
from pag_inverse.priors import LatentPrior, Prior
from pag_inverse.priors.base import Prediction
from pag_inverse.schedule import T

KINDS = ("forward", "backward", "autoencoder_forward", "autoencoder_backward")


class Passes:
    """The passes so far by kind: of the network that predicts eps, plain or perturbed, and of the autoencoder."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def clear(self) -> None:
        """Count from zero."""
        self.counts = dict.fromkeys(KINDS, 0)

    def see(self, output: Tensor, of: str = "") -> Tensor:
        """Count the call that gave `output`, and each gradient that will reach it."""
        self._add(f"{of}forward")
        if output.requires_grad:
            output.register_hook(partial(self._add, f"{of}backward"))
        return output

    def _add(self, kind: str, _: Tensor | None = None) -> None:
        self.counts[kind] += 1


def counted(prior: Prior, passes: Passes) -> Prior:
    """A view of a prior, with the same networks and results, whose calls are counted."""
    view = copy.copy(prior)

    def predict(z: Tensor, t: int, condition: Tensor | None = None, *, network: Any = None) -> Prediction:
        found = prior.predict(z, t, condition, network=network)
        passes.see(found.eps)
        return found

    def decode(z: Tensor) -> Tensor:
        return passes.see(prior.decode(z), "autoencoder_")

    def encode(x: Tensor, draw: Draw | None = None) -> Tensor:
        return passes.see(prior.encode(x, draw), "autoencoder_")

    own: dict[str, Callable[..., Any]] = {"predict": predict}
    if isinstance(prior, LatentPrior):  # a prior on pixels has no autoencoder
        own |= {"decode": decode, "encode": encode}
    for name, method in own.items():
        setattr(view, name, method)
    return view


def counted_model(prior: Prior, guidance: Guidance, passes: Passes) -> GuidedModel:
    """The prior under a guidance, whose calls are counted from now on."""
    model = GuidedModel(counted(prior, passes), guidance)
    high = getattr(guidance, "interval", (0.0, 1.0))[1]
    with torch.no_grad():  # the first call at which PAG acts makes the perturbed networks, with a call of its own
        model(prior.example_state(), min(math.floor(high * T), T - 1))
    passes.clear()
    return model
