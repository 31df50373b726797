"""The networks of a prior: a private view of the caller's, and how one is run in its own number format.

States, losses and gradients keep their format whatever a network computes in: its input is cast on the way in, its
output on the way out, and autograd casts the gradient at the same two places. Weights are cast, rather than
operations one by one (autocast): as fast and as near to float32 on the embedded priors, at half the memory.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Tables of a module's hooks, and what accelerate and diffusers put on a module beside them to wrap its forward.
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
_HOOK_FLAGS = ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")
_WRAPPERS = ("forward", "_old_forward", "_hf_hook", "_diffusers_hook")


def own_view(network: Any) -> Any:
    """A frozen copy of a network's modules over the same weights, in evaluation mode; the network is left as it is.

    The parameters are new objects that share the storage of the caller's, so training the caller's network in place
    shows in the view. Hooks and wrapped forward methods are not copied: they belong to the caller, and may refer to
    the caller's modules. Only torch's own hooks that compute a weight are. A module from `torch.compile` is viewed as
    the module that it wraps. Weights made under `torch.inference_mode` are copied, since autograd cannot record what
    is computed with them.
    """
    from pag_inverse.priors.activation_memory import keep_little  # imports diffusers, which takes longer than torch

    network = uncompiled(network)
    with torch.inference_mode(False):
        memo: dict[int, Any] = {}
        for module in network.modules():
            memo.update(_replacements(module))
        view = copy.deepcopy(network, memo)
    for module in view.modules():
        for name in _WRAPPERS:
            vars(module).pop(name, None)
    keep_little(view)
    return view.eval()


def uncompiled(network: Any) -> Any:
    """The module that one from `torch.compile` wraps, or the module itself."""
    return getattr(network, "_orig_mod", network)


def _replacements(module: nn.Module) -> dict[int, Any]:
    """What a deep copy puts in the place of a module's tensors and hooks, by the identity of what it replaces."""
    found: dict[int, Any] = {}
    for parameter in module._parameters.values():
        if parameter is not None:
            found[id(parameter)] = nn.Parameter(_shared(parameter), requires_grad=False)
    for tensor in [*module._buffers.values(), *vars(module).values()]:
        if isinstance(tensor, Tensor):
            found[id(tensor)] = _shared(tensor)
    for name in (*_HOOKS, *_HOOK_FLAGS):
        table = getattr(module, name, None)
        if table:
            found[id(table)] = type(table)({key: hook for key, hook in table.items() if _makes_weights(hook)})
    found.update({id(value): "dropped" for name, value in vars(module).items() if name in _WRAPPERS})
    return found


def _makes_weights(hook: object) -> bool:
    """Whether a hook is a part of its module: torch's own, which computes a weight (weight_norm, pruning)."""
    return type(hook).__module__.startswith("torch.nn.utils")


def _shared(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def network_dtype(network: nn.Module) -> torch.dtype:
    """The number format of a network's weights."""
    return next(network.parameters()).dtype


def own_settings(network: Any) -> dict[str, Any]:
    """The settings of a network of diffusers that differ from its class's defaults: they decide what it computes.

    `sample_size` is left out: it only says what pictures the network was trained with.
    """
    defaults = inspect.signature(type(network).__init__).parameters
    return {
        name: value
        for name, value in getattr(network, "config", {}).items()
        if not name.startswith("_") and name != "sample_size" and not _is_default(value, defaults.get(name))
    }


def _is_default(value: object, parameter: inspect.Parameter | None) -> bool:
    default = None if parameter is None else parameter.default
    return (list(value) if isinstance(value, tuple) else value) == (
        list(default) if isinstance(default, tuple) else default
    )


def run_network(network: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """network(x), computed in `dtype` and given back in x's own; the gradient takes the same way back.

    In float16 each image's gradient is multiplied by a power of two on its way into the network, so that its largest
    entry is about 1, and divided by it on its way out: most of it lies below what float16 can tell from 0 otherwise.
    """
    if x.dtype == dtype:
        return network(x)
    if dtype != torch.float16:
        return network(x.to(dtype)).to(x.dtype)
    scale = _GradientScale()
    y: Tensor = _Leave.apply(network(_Enter.apply(x, dtype, scale)), x.dtype, scale)
    return y


class _GradientScale:
    """The power of two of each image, from the output of a network, where it is set, to its input.

    With `create_graph` it holds for that backward pass alone: a second derivative enters the network by other ways.
    """

    factor: Tensor | None = None
    spent = False

    def into(self, grad: Tensor) -> Tensor:
        """The gradient of a network's output, scaled."""
        if self.spent:
            return grad
        with torch.no_grad():
            largest = grad.flatten(1).abs().amax(dim=1).reshape(-1, *[1] * (grad.ndim - 1))
            exponent = torch.frexp(largest).exponent.clamp(-100, 100)
            self.factor = torch.ldexp(torch.ones_like(largest), -exponent)
        return grad * self.factor

    def out_of(self, grad: Tensor) -> Tensor:
        """The gradient of its input, with the scale taken off again."""
        factor = self.factor
        if torch.is_grad_enabled():
            self.factor, self.spent = None, True
        return grad if factor is None else grad / factor


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, scale: _GradientScale) -> Tensor:
        ctx.scale, ctx.dtype = scale, x.dtype
        return x.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return ctx.scale.out_of(grads[0].to(ctx.dtype)), None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, dtype: torch.dtype, scale: _GradientScale) -> Tensor:
        ctx.scale, ctx.dtype = scale, y.dtype
        return y.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return ctx.scale.into(grads[0]).to(ctx.dtype), None, None
