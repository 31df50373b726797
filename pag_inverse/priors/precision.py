"""How a prior's networks run: in which number format, compiled or not, with how much memory.

States, losses and gradients stay float32 whatever the networks compute in: a network's input is cast on its way in, its
output on its way out, and autograd casts the gradient back at the same two places. Weights are cast, rather than
operations one by one (autocast): as fast and as near to float32 on the embedded priors, at half the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pag_inverse.settings.tables import PRECISIONS
from pag_inverse.settings.reader import check_choice


def precision_dtype(precision: str) -> torch.dtype:
    """The number format of a precision's name; ValueError for an unknown one."""
    check_choice("precision", precision, PRECISIONS)
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


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
    """The power of two of each image, from the output of a network, where it is set, to its input."""

    factor: Tensor

    def apply(self, grad: Tensor) -> Tensor:
        largest = grad.flatten(1).abs().amax(dim=1).reshape(-1, *[1] * (grad.ndim - 1))
        exponent = torch.frexp(largest).exponent.clamp(-100, 100)
        self.factor = torch.ldexp(torch.ones_like(largest), -exponent)
        return grad * self.factor


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, scale: _GradientScale) -> Tensor:
        ctx.scale, ctx.dtype = scale, x.dtype
        return x.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0].to(ctx.dtype) / ctx.scale.factor, None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, dtype: torch.dtype, scale: _GradientScale) -> Tensor:
        ctx.scale, ctx.dtype = scale, y.dtype
        return y.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return ctx.scale.apply(grads[0]).to(ctx.dtype), None, None


def place(network: nn.Module, device: str, dtype: torch.dtype, channels_last: bool = False) -> None:
    """Move a network in place; diffusers' own `to` warns of layers to keep in float32 that these networks lack."""
    nn.Module.to(network, device, dtype)
    if channels_last:
        nn.Module.to(network, memory_format=torch.channels_last)


def frozen(network: Any) -> Any:
    """The network made ready for gradients of its input alone: no parameter asks for one, little is kept for them."""
    from pag_inverse.priors.activation_memory import keep_little

    keep_little(network)
    return network.eval().requires_grad_(False)


def spare_memory(network: Any) -> None:
    """Keep only what enters each block for the backward pass, which computes the rest again; the VAE one image at a
    time. The same operations on the same numbers: nothing changes but the time."""
    network.enable_gradient_checkpointing()
    if hasattr(network, "enable_slicing"):
        network.enable_slicing()


def check_compiler(device: str) -> None:
    """ValueError where torch.compile has no compiler for the device to work with."""
    try:
        torch.compile(torch.nn.functional.gelu, fullgraph=True)(torch.zeros(7, device=device))
    except Exception as error:  # whatever its backends raise, which differs between them and versions of torch
        reason = " ".join(str(error).split())[:160]
        needed = "Triton" if device.startswith("cuda") else "a C++ compiler (g++, or what CXX names)"
        raise ValueError(f"networks cannot be compiled here, {needed} is needed: {reason}") from error


def network_dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
