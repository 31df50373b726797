"""Convolutions of images with kernels, and their adjoints: the functions that blurs are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LinearMap", "apply_linear", "blur_matrix", "correlated", "filtered", "folded", "wrapped_power"]

LinearMap = Callable[[Tensor], Tensor]


class _Linear(torch.autograd.Function):
    """A linear map whose gradient is its adjoint: half the cost of differentiating through a real FFT."""

    @staticmethod
    def forward(x: Tensor, apply: LinearMap, adjoint: LinearMap) -> Tensor:
        return apply(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, LinearMap, LinearMap], output: Tensor) -> None:
        _, ctx.apply_map, ctx.adjoint_map = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return apply_linear(grads[0], ctx.adjoint_map, ctx.apply_map), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return apply_linear(tangents[0], ctx.apply_map, ctx.adjoint_map)


def apply_linear(x: Tensor, apply: LinearMap, adjoint: LinearMap) -> Tensor:
    result: Tensor = _Linear.apply(x, apply, adjoint)
    return result


def filtered(images: Tensor, spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    # Half precision has no FFT everywhere: at least float32 inside.
    waves: Tensor = torch.fft.rfft2(images.to(spectrum.real.dtype), s=size)
    result: Tensor = torch.fft.irfft2(waves * spectrum, s=size)
    return result.to(images.dtype)


def correlated(images: Tensor, kernel: Tensor) -> Tensor:
    """The valid part of the correlation of (B, C, H, W) with kernels (1 or B, 1, kh, kw)."""
    batch, channels = images.shape[:2]
    half = images.dtype in (torch.float16, torch.bfloat16)  # torch's own convolution takes minutes in float16
    dtype = torch.float32 if half else images.dtype
    weights = kernel.expand(batch, -1, -1, -1).repeat_interleave(channels, dim=0).to(dtype)
    out = F.conv2d(images.flatten(0, 1)[None].to(dtype), weights, groups=batch * channels)
    return out.view(batch, channels, *out.shape[2:]).to(images.dtype)


def folded(padded: Tensor, dim: int, pad: int) -> Tensor:
    """The adjoint of the reflection by `pad` along `dim`: every mirrored entry is added to its original."""
    size = padded.shape[dim] - 2 * pad
    out = padded.narrow(dim, pad, size).clone()
    out.narrow(dim, 1, pad).add_(padded.narrow(dim, 0, pad).flip(dim))
    out.narrow(dim, size - 1 - pad, pad).add_(padded.narrow(dim, size + pad, pad).flip(dim))
    return out


def blur_matrix(taps: Tensor, size: int) -> Tensor:
    """The matrix (B, size, size) that blurs a line of `size` pixels by taps (B, k), continued by reflection."""
    k = taps.shape[-1]
    pixels = torch.arange(size, device=taps.device)
    seen = pixels[:, None] - torch.arange(k, device=taps.device)[None, :] + k // 2
    seen = seen.abs()
    seen = size - 1 - (size - 1 - seen).abs()
    matrix = taps.new_zeros((len(taps), size, size))
    index = seen.expand(len(taps), -1, -1)
    return matrix.scatter_add_(2, index, taps[:, None, :].expand(-1, size, -1))


def wrapped_power(kernels: Tensor, height: int, width: int) -> Tensor:
    """|K|^2 of kernels (B, kh, kw) that are wrapped around an image of `height` x `width`, (B, H, W / 2 + 1)."""
    wrapped = kernels.new_zeros((len(kernels), height, width))
    rows, columns = (torch.arange(side, device=kernels.device) for side in kernels.shape[-2:])
    at = (rows % height)[:, None] * width + (columns % width)[None, :]
    wrapped.flatten(1).index_add_(1, at.flatten(), kernels.flatten(1))
    return torch.fft.rfft2(wrapped).abs().square()
