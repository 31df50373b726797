"""The loop: from a measurement to a restoration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operators import Noise, Operator
from pag_inverse.guidance.guidance import Guidance
from pag_inverse.priors.base import Draw, Prior
from pag_inverse.solvers.base import Solver, StepOutput
from pag_inverse.runtime.streams import batch_draw

Callback = Callable[[int, int, StepOutput], None]


@dataclass(frozen=True)
class RestorationResult:
    """What a run ends with.

    x: restorations (B, 3, H, W), [-1, 1] up to overshoot; z: final states; residuals: ||y - A(x0)|| over what was
    measured, (B, steps) in the order of execution, the one before where a step did not look at the image; failed:
    image of the batch -> the step (1 is the first) at which it left the finite numbers. A failed image leaves the
    others as they are; its x is not meaningful.
    """

    x: Tensor
    z: Tensor
    residuals: Tensor
    failed: dict[int, int]


def solve(
    y: Tensor,
    operator: Operator,
    prior: Prior,
    solver: Solver,
    guidance: Guidance,
    *,
    noise: Noise,
    steps: int,
    seeds: Sequence[int],
    callback: Callback | None = None,
    draw: Draw | None = None,
) -> RestorationResult:
    """Restore a batch of measurements y (B, *operator.out_shape), each image with the random stream of its own seed.

    `callback(done, steps, output)` is called after each step. `draw` replays recorded random numbers in place of the
    seeds. Raises ValueError where the prior cannot take the images, or a layer, seed count or steps do not fit.
    """
    if len(seeds) != len(y):
        raise ValueError(f"{len(y)} measurements need as many seeds, not {len(seeds)}")
    solver.check(operator)
    schedule = solver.schedule(prior, steps)
    draw = draw or batch_draw(seeds, y.device)
    z = draw((len(y), *prior.state_shape(operator.in_shape)))
    residuals: list[Tensor] = []
    health = torch.zeros(len(y), dtype=torch.long, device=y.device)
    for done, i in enumerate(reversed(range(steps)), start=1):
        output = solver.step(z, i, schedule, y, noise, operator, prior, guidance, draw)
        z = output.z
        finite = torch.isfinite(z).flatten(1).all(dim=1)
        health = torch.where((health == 0) & ~finite, done, health)
        residuals.append(residuals[-1] if output.x0 is None and residuals else output.residual)
        if callback is not None:
            callback(done, steps, output)
    with torch.no_grad():
        x = prior.decode(z)
    failed = {b: int(step) for b, step in enumerate(health.tolist()) if step}
    return RestorationResult(x, z, torch.stack(residuals, dim=1), failed)
