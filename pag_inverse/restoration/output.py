"""What restore() returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pag_inverse.problem import InverseProblem
from pag_inverse.restoration.kinds import Kind as PictureKind
from pag_inverse.restoration.loop import ChainResult


@dataclass(frozen=True)
class RestorationOutput:
    """Restorations of a batch of B pictures, S samples each.

    x: (B, S, 3, H, W), float32, clamped to [-1, 1]. residuals: ||y - A x|| over sigma sqrt(m), or over sqrt(m) where
    sigma is 0 or unknown, (B, S); about 1 is right where sigma is known. failed: (picture, sample) -> the step at which
    it left the finite numbers, 0 for one that a stopped run did not begin; its x is zero. problem: what was solved.
    stopped: whether a callback ended the run.

    >>> import torch
    >>> from pag_inverse import restore
    >>> output = restore(torch.zeros(1, 3, 64, 64), task="gaussian_deblur", steps=2, num_samples=2)
    >>> output.x.shape, output.mean.shape, output.std.shape, output.residuals.shape
    (torch.Size([1, 2, 3, 64, 64]), torch.Size([1, 3, 64, 64]), torch.Size([1, 3, 64, 64]), torch.Size([1, 2]))
    """

    x: Tensor
    residuals: Tensor
    failed: dict[tuple[int, int], int]
    problem: InverseProblem
    stopped: bool
    kind: PictureKind

    @property
    def images(self) -> Any:
        """The first sample of each picture, of the kind that was given: PIL images, arrays, or tensors."""
        return self.kind.back(self.x[:, 0])

    @property
    def mean(self) -> Tensor:
        """The mean of the samples, (B, 3, H, W)."""
        return self.x.mean(dim=1)

    @property
    def std(self) -> Tensor:
        """The standard deviation of the samples, (B, 3, H, W); zero for a single one."""
        return self.x.std(dim=1) if self.x.shape[1] > 1 else torch.zeros_like(self.x[:, 0])


def output_of(
    parts: Sequence[tuple[InverseProblem, Sequence[ChainResult]]], problem: InverseProblem, kind: PictureKind
) -> RestorationOutput:
    """The output of the problems that were solved, a chain a sample; a stopped run may lack some samples."""
    count = max(len(results) for _, results in parts)
    pictures, residuals, first = [], [], 0
    failed: dict[tuple[int, int], int] = {}
    for part, results in parts:
        x = torch.zeros((len(part), count, *part.operator.in_shape), device=part.y.device)
        for s in range(count):
            left = results[s].failed if s < len(results) else dict.fromkeys(range(len(part)), 0)
            failed |= {(first + b, s): step for b, step in left.items()}
            if s < len(results):
                x[:, s] = results[s].x.float()
            x[list(left), s] = 0.0
        x = x.clamp(-1, 1)
        residuals.append(torch.stack([part.relative_residual(x[:, s].to(part.y)) for s in range(count)], dim=1))
        pictures.append(x)
        first += len(part)
    stopped = any(result.stopped for _, results in parts for result in results)
    return RestorationOutput(torch.cat(pictures), torch.cat(residuals), failed, problem, stopped, kind)
