"""What a plain and a perturbed pass share: everything before the first perturbed layer, computed once.

The plain pass runs on a twin of the network whose first modules record their outputs; the perturbed pass runs on a
second twin with stubs in their place, which hand the recorded outputs on. One mechanism serves every diffusers
network, since it only looks at the order of calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pag_inverse.guidance.perturbation import Identity, PassContext, Perturbation, perturbed_twin, twin
from pag_inverse.guidance.sag import AdversarialBlur, BlurredPair
from pag_inverse.priors.base import Prediction, Prior


class PassPair:
    """A plain and a perturbed network that compute what they share once; it serves one call at a time."""

    def __init__(
        self, prior: Prior, layers: Sequence[str], shared: Sequence[str], perturbation: Perturbation | None = None
    ) -> None:
        self._context = PassContext()
        self.plain = twin(prior.unet)
        self.perturbed = perturbed_twin(prior.unet, layers, perturbation, self._context)
        self._recorded: dict[str, Any] = {}
        self._recorder: int | None = None  # the thread whose forward pass is recorded
        for name in shared:
            self.plain.get_submodule(name).register_forward_hook(self._keep(name))
            parent, _, child = name.rpartition(".")
            stub = _Recorded(self._recorded, name, self.plain.get_submodule(name))
            setattr(self.perturbed.get_submodule(parent), child, stub)
        if prior.compiled:
            self.plain, self.perturbed = torch.compile(self.plain), torch.compile(self.perturbed)

    def __call__(
        self, prior: Prior, z: Tensor, t: int, condition: Tensor | None, seeds: Sequence[int] | None = None
    ) -> tuple[Prediction, Tensor]:
        """eps with its graph, and eps-hat without one."""
        prediction = self.record(prior, z, t, condition)
        try:
            return prediction, self.finish(prior, z, t, condition, seeds)
        finally:
            self._recorded.clear()

    def record(self, prior: Prior, z: Tensor, t: int, condition: Tensor | None) -> Prediction:
        """The plain pass, which records what `finish` needs."""
        self._recorder = threading.get_ident()
        try:
            return prior.predict(z, t, condition, network=self.plain)
        finally:
            self._recorder = None

    @torch.no_grad()
    def finish(
        self, prior: Prior, z: Tensor, t: int, condition: Tensor | None, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """eps-hat: the perturbed pass from its first perturbed layer on, of the state that was recorded last."""
        self._context.enter(z, t, seeds)
        return prior.predict(z.detach(), t, condition, network=self.perturbed).eps

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            # A backward pass with gradient checkpointing runs the forward again: that one is not recorded.
            if self._recorder == threading.get_ident():
                self._recorded[name] = _detached(output)

        return torch.compiler.disable(hook)


class Pair(Protocol):
    """Two passes of a network."""

    def __call__(
        self, prior: Prior, z: Tensor, t: int, condition: Tensor | None, seeds: Sequence[int] | None
    ) -> tuple[Prediction, Tensor]: ...


class PassPairs:
    """The pairs of one prior, one set of layers and one perturbation: as many as calls run at the same time."""

    def __init__(self, prior: Prior, layers: Sequence[str], perturbation: Perturbation | None = None) -> None:
        self.layers, self.perturbation = prior.resolve_layers(layers), perturbation or Identity()
        self._shared = completed_before(prior, [self.perturbation.module(layer) for layer in self.layers])
        self._idle: list[Pair] = []
        self._lock = threading.Lock()

    def __call__(
        self, prior: Prior, z: Tensor, t: int, condition: Tensor | None, seeds: Sequence[int] | None = None
    ) -> tuple[Prediction, Tensor]:
        """eps with its graph, and eps-hat without one, by a pair that no other call uses meanwhile."""
        with self._lock:
            pair = self._idle.pop() if self._idle else None
        pair = pair or self._make(prior)
        try:
            return pair(prior, z, t, condition, seeds)
        finally:
            with self._lock:
                self._idle.append(pair)

    def _make(self, prior: Prior) -> Pair:
        if isinstance(self.perturbation, AdversarialBlur):
            return BlurredPair(prior, self.layers, self.perturbation)
        return PassPair(prior, self.layers, self._shared, self.perturbation)


class _Recorded(nn.Module):
    """Stands for a module whose output is known; what a network reads of the module besides, it has too."""

    def __init__(self, recorded: dict[str, Any], name: str, module: nn.Module) -> None:
        super().__init__()
        self.recorded, self.name = recorded, name
        self._instead_of = (module,)  # in a tuple it is no child: the twin holds no weights of it

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_instead_of"][0], name)

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.recorded[self.name]


@torch.no_grad()
def completed_before(prior: Prior, layers: Sequence[str]) -> list[str]:
    """The outermost modules that one pass calls once each, and leaves before it enters the first of `layers`.

    `layers` are diffusers' names, of layers or of the blocks around them. The order is read from a pass over the
    smallest state, on a twin.
    """
    network = twin(prior.unet)
    calls: dict[str, int] = {}
    done: list[str] = []
    reached = False

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal reached
            calls[name] = calls.get(name, 0) + 1
            reached = reached or name in layers

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if not reached:
                done.append(name)

        return hook

    for name, module in network.named_modules():
        if name:
            module.register_forward_pre_hook(enter(name))
            module.register_forward_hook(leave(name))
    prior.predict(prior.example_state(), 0, prior.example_condition(), network=network)
    once = {name for name in done if calls[name] == 1}
    return sorted(name for name in once if not any(above in once for above in _parents(name)))


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _detached(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, (tuple, list)):
        return type(output)(_detached(part) for part in output)
    return output
