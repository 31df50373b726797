"""Options of how a prior's networks run: number format, device, memory layout, compiler, activation memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pag_inverse.settings import PRECISIONS, check_choice


def precision_dtype(precision: str) -> torch.dtype:
    """The number format of a precision's name; ValueError for an unknown one."""
    check_choice("precision", precision, PRECISIONS)
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def check_speed(dtype: torch.dtype | None, device: torch.device) -> None:
    """ValueError for float16 on a processor."""
    if dtype == torch.float16 and device.type == "cpu":
        raise ValueError("precision float16 is too slow on a processor; there is bfloat16")


def place(
    network: nn.Module, device: str | torch.device | None, dtype: torch.dtype | None, channels_last: bool = False
) -> None:
    """Move a network in place; diffusers' own `to` warns of layers to keep in float32 that these networks lack."""
    nn.Module.to(network, device=device, dtype=dtype)
    if channels_last:
        nn.Module.to(network, memory_format=torch.channels_last)


def spare_memory(network: Any) -> None:
    """Keep only what enters each block for the backward pass, which computes the rest again; the VAE one image at a
    time. The same operations on the same numbers: nothing changes but the time."""
    from pag_inverse.priors.activation_memory import keep_little_anywhere  # imports diffusers

    keep_little_anywhere(network)
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
