"""What a plain and a perturbed pass share: everything before the first perturbed layer, computed once.

The plain network records the outputs of its first modules; a second perturbed twin has stubs in their place that hand
the recorded outputs on. One mechanism serves every diffusers network, since it only looks at the order of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pag_inverse.guidance.perturbation import perturbed_twin, resolve_layers


class SharedPrefix:
    """A perturbed twin that starts where it first differs from the network.

    `run` calls the network on any input it takes: from one such call without a graph the order of the modules is read.
    While `recording` the network's outputs are kept in `recorded`, without their graph; `twin` takes them from there.
    """

    def __init__(self, model: Any, layers: Sequence[str], run: Callable[[Any], object]) -> None:
        names = completed_before(model, resolve_layers(model, layers), run)
        self.recorded: dict[str, Any] = {}
        self.recording = False
        self.twin = perturbed_twin(model, layers)
        for name in names:
            model.get_submodule(name).register_forward_hook(self._keep(name))
            parent, _, child = name.rpartition(".")
            stub = _Recorded(self.recorded, name, model.get_submodule(name))
            setattr(self.twin.get_submodule(parent), child, stub)

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if self.recording:
                self.recorded[name] = _detached(output)

        return hook


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
def completed_before(model: Any, layers: Sequence[str], run: Callable[[Any], object]) -> list[str]:
    """The outermost modules that one pass calls once each, and leaves before it enters the first of `layers`."""
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

    handles = []
    for name, module in model.named_modules():
        if name:
            handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave(name))]
    try:
        run(model)
    finally:
        for handle in handles:
            handle.remove()
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
