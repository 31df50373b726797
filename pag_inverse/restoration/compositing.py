"""Known pixels pasted back into a restoration."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pag_inverse.problem import InverseProblem


def pasted(x: Tensor, problem: InverseProblem, edge: int = 0) -> Tensor:
    """x (B, 3, H, W) with the measured pixels of an inpainting problem in place of its own.

    `edge` 0 pastes all of them. Otherwise they fade in: a measured pixel at distance d from the hole has the weight
    d / (edge + 1), at most 1, and x the rest. In the hole it is x.
    """
    y = problem.y * problem.mask
    if edge == 0:
        return problem.operator.project(x, y)
    weights = torch.stack([_fading(mask[0], edge) for mask in problem.mask])[:, None]
    x = x.clamp(-1, 1)  # as it is saved
    return x + weights.to(x) * (y - x)


def _fading(mask: Tensor, edge: int) -> Tensor:
    from scipy.ndimage import distance_transform_edt

    known = mask.cpu().numpy() > 0
    if known.all():
        return torch.ones(mask.shape)
    return torch.from_numpy(np.clip(distance_transform_edt(known) / (edge + 1), 0, 1))
