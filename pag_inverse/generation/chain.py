"""Algorithm 1 of the paper: from noise to pictures, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pag_inverse.generation.samplers import Sampler, SampleStep
from pag_inverse.guidance import Explainer, GuidedModel
from pag_inverse.priors.base import Draw
from pag_inverse.restoration.loop import first_failure, is_true
from pag_inverse.runtime.streams import batch_draw
from pag_inverse.schedule import T
from pag_inverse.settings import check_whole

Callback = Callable[[int, int, SampleStep], object]


@dataclass(frozen=True)
class SampledBatch:
    """x: (B, 3, H, W), not clamped. failed: image -> the step at which it left the finite numbers."""

    x: Tensor
    failed: dict[int, int]
    stopped: bool


def run_sampler(
    model: GuidedModel,
    sampler: Sampler,
    image_shape: tuple[int, int, int],
    steps: int,
    seeds: Sequence[int],
    *,
    callback: Callback | None = None,
    draw: Draw | None = None,
    explain: Explainer | None = None,
) -> SampledBatch:
    """Sample a picture for each seed, whose stream gives the start and then the noise of each step.

    `callback(done, steps, step)` is called after each step and ends the chain by returning True; then the x0 of that
    step is decoded. `draw` replays recorded random numbers in place of the seeds. `explain` records what guidance did.
    ValueError: the prior cannot make pictures (3, H, W) of `image_shape`, or the number of steps does not fit.
    """
    check_whole("steps", steps, 1, T)
    shape = (len(seeds), *model.prior.state_shape(image_shape))
    with torch.inference_mode(False), torch.no_grad():
        draw, model = draw or batch_draw(seeds, model.prior.device), model.seeded(seeds)
        schedule = sampler.schedule(model.prior, steps)
        recording = None if explain is None else explain.start(model, len(seeds), steps, lambda x: x)
        model = model if recording is None else recording.model
        z = draw(shape)
        health = torch.zeros(len(seeds), dtype=torch.long, device=z.device)
        stopped = False
        for done, i in enumerate(reversed(range(steps)), start=1):
            step = sampler.step(z, i, model, schedule, draw)
            z = step.z
            if recording is not None:
                recording.step(done, schedule, i)
            health = first_failure(health, z, done)
            stopped = callback is not None and is_true(callback(done, steps, step))
            if stopped or bool((health > 0).all()):
                break
        x = model.decode(step.x0 if stopped else z)
        health = first_failure(health, x, done)
    return SampledBatch(x, {b: int(at) for b, at in enumerate(health.tolist()) if at}, stopped)
