"""Residual blocks that keep only what the gradient of their input needs.

For the backward pass autograd keeps what enters each group norm and, for the SiLU behind it, what leaves it. The second
follows from the first: here it is computed again, which halves what a block keeps, for one norm more a convolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


def keep_little(network: nn.Module) -> None:
    """Turn the residual blocks of a frozen diffusers network into lean ones, in place; others stay as they are."""
    for block in network.modules():
        norms = (getattr(block, "norm1", None), getattr(block, "norm2", None))
        plain = all(type(norm) is nn.GroupNorm for norm in norms)
        if type(block) is ResnetBlock2D and plain and isinstance(block.nonlinearity, nn.SiLU):
            block.__class__ = LeanResnetBlock


class LeanResnetBlock(ResnetBlock2D):
    """diffusers' ResnetBlock2D: the same operations in the same order, fewer tensors kept.

    A block whose parameters are trained, or that is being compiled (the compiler chooses by itself), runs as it is.
    """

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args: Any) -> Tensor:
        frozen = not (self.norm1.weight.requires_grad or (temb is not None and temb.requires_grad))
        if not (frozen and input_tensor.requires_grad and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            output: Tensor = super().forward(input_tensor, temb, *args)
            return output
        h = _norm_silu(self.norm1, input_tensor, None, None)
        resample = self.upsample or self.downsample
        if resample is not None:
            input_tensor, h = resample(input_tensor), resample(h)
        h = self.conv1(h)
        h = self.conv2(_norm_silu(self.norm2, *self._with_time(h, temb)))
        if self.conv_shortcut is not None:
            input_tensor = self.conv_shortcut(input_tensor)
        return (input_tensor + h) / self.output_scale_factor

    def _with_time(self, h: Tensor, temb: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What enters the second norm, and what its output is multiplied by and what is added to it."""
        if temb is not None and self.time_emb_proj is not None:
            temb = self.time_emb_proj(temb if self.skip_time_act else self.nonlinearity(temb))[:, :, None, None]
        if temb is None or self.time_embedding_norm not in ("default", "scale_shift"):
            return h, None, None
        if self.time_embedding_norm == "default":
            return h + temb, None, None
        scale, shift = temb.chunk(2, dim=1)
        return h, 1 + scale, shift


def _norm_silu(norm: nn.GroupNorm, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    y: Tensor = _NormSilu.apply(x, norm, scale, shift)
    return y


class _NormSilu(torch.autograd.Function):
    """silu(group_norm(x) * scale + shift), which keeps x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.GroupNorm, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        ctx.norm = norm
        ctx.save_for_backward(x, scale, shift)
        return F.silu(_modulated(norm, x, scale, shift))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, scale, shift = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            output = F.silu(_modulated(ctx.norm, leaf, scale, shift))
        return torch.autograd.grad(output, leaf, grads[0])[0], None, None, None


def _modulated(norm: nn.GroupNorm, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    y: Tensor = norm(x)
    return y if scale is None or shift is None else y * scale + shift
