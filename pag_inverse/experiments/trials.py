"""Simulated problems and their restorations in memory, for commands that try many settings on a few pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import Noise, Operator, make_noise, make_operator
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.guidance.guidance import Guidance, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.data.images import prepare, read_image, to_uint8
from pag_inverse.metrics.paired import psnr, sharpness, ssim
from pag_inverse.priors import Prior
from pag_inverse.restoration.loop import solve
from pag_inverse.settings.tables import Hyperparameters, TaskConfig
from pag_inverse.solvers import make_solver
from pag_inverse.runtime.streams import batch_draw, operator_rng, stream_seed

SIDE = 256  # of the pictures that the embedded priors' rows were tuned for


@dataclass(frozen=True)
class Problem:
    """Truths (B, 3, n, n) in [-1, 1], and what was measured of them."""

    names: tuple[str, ...]
    truths: Tensor
    operator: Operator
    noise: Noise
    y: Tensor
    seed: int

    def unit(self) -> Tensor:
        """sigma sqrt(m) of each image: what ||y - A x|| is for the truth."""
        return self.noise.sigma * self.operator.observation_mask(self.y).flatten(1).sum(dim=1).sqrt()

    @torch.no_grad()
    def residual(self, x: Tensor) -> Tensor:
        """||y - A x|| / (sigma sqrt(m)) over what was measured, one an image."""
        left = (self.y - self.operator.forward(x)) * self.operator.observation_mask(self.y)
        return left.flatten(1).norm(dim=1) / self.unit()

    def single(self, b: int) -> Problem:
        """The problem of one picture of the batch."""
        return self.select([b])

    def select(self, numbers: Sequence[int]) -> Problem:
        """The problem of some pictures of the batch."""
        chosen, names = list(numbers), tuple(self.names[b] for b in numbers)
        operator = self.operator.select(chosen)
        return replace(self, names=names, truths=self.truths[chosen], operator=operator, y=self.y[chosen])


@dataclass(frozen=True)
class Restorations:
    """Samples (S, B, 3, n, n), the last residual of each over sigma sqrt(m), (S, B), and seconds for one sample.

    `cpu_seconds` are those of the processor, of all its cores together: other programs beside do not lengthen them.
    """

    samples: Tensor
    residuals: Tensor
    seconds: float
    cpu_seconds: float


def read_truths(files: Sequence[Path], side: int) -> Tensor:
    """The central squares of pictures at 256 pixels; a smaller `side` is cut out of their middle at that scale."""
    truths = torch.stack([torch.from_numpy(prepare(read_image(file), max(side, SIDE))) for file in files])
    first = (truths.shape[-1] - side) // 2
    return truths[..., first : first + side, first : first + side].contiguous()


def make_problem(task: TaskConfig, names: Sequence[str], truths: Tensor, seed: int) -> Problem:
    """Degrade pictures as `scripts/solve.py` does, each with the operator and noise of its own name and the seed."""
    side = truths.shape[-1]
    settings = scaled_box(task.operator.settings, side) if side < SIDE else task.operator.settings
    rngs = [operator_rng(seed, name) for name in names]
    operator = make_operator(task.operator.name, (3, side, side), settings, rngs).to(truths.device, torch.float32)
    noise = make_noise("gaussian", task.sigma) if task.sigma else make_noise("none")
    draw = batch_draw([stream_seed(seed, name, "measurement") for name in names], truths.device)
    return Problem(tuple(names), truths, operator, noise, noise(operator.forward(truths), draw), seed)


def scaled_box(settings: Mapping[str, Any], side: int) -> dict[str, Any]:
    """The box and its margin as large a part of a smaller picture as of a whole one; other settings as they are."""
    scaled = {key: settings[key] * side // SIDE for key in ("box", "margin") if settings.get(key) is not None}
    return {**settings, **scaled}


def make_guidance(row: Hyperparameters) -> Guidance:
    if row.s == 0:
        return NoGuidance()
    return PerturbedAttentionGuidance(row.s, row.layers, interval=row.options.pag_interval)


def restore_samples(
    problem: Problem,
    prior: Prior,
    solver: str,
    row: Hyperparameters,
    samples: int,
    tick: Callable[[int], object] = lambda _: None,
    first: int = 0,
) -> Restorations:
    """Posterior samples of each measurement, from number `first` on, one sample of every picture in a batch.

    `tick(1)` is called after each step.
    """

    def show(*_: object) -> None:
        tick(1)

    if problem.y.device.type == "cpu":
        settle_freed_memory(problem.truths[0, 0].numel())
    begun, cpu_begun, xs, residuals = time.monotonic(), time.process_time(), [], []
    for sample in range(first, first + samples):
        result = solve(
            problem.y,
            problem.operator,
            prior,
            make_solver(solver, row),
            make_guidance(row),
            noise=problem.noise,
            steps=row.steps,
            seeds=[stream_seed(problem.seed, name, "sampling", sample) for name in problem.names],
            callback=show,
        )
        xs.append(result.x.clamp(-1, 1))
        residuals.append(problem.residual(xs[-1]))
    count = samples * len(problem.names)
    seconds, cpu_seconds = (time.monotonic() - begun) / count, (time.process_time() - cpu_begun) / count
    return Restorations(torch.stack(xs), torch.stack(residuals), seconds, cpu_seconds)


def score(image: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR, SSIM and sharpness of one image as it would be saved; of NaN, the worst there are."""
    if not bool(torch.isfinite(image).all()):
        return {"psnr": 0.0, "ssim": 0.0, "sharpness": float("inf")}
    picture, reference = to_uint8(image), to_uint8(truth)
    return {
        "psnr": psnr(picture, reference),
        "ssim": ssim(picture, reference),
        "sharpness": sharpness(picture, reference),
    }


def scores(problem: Problem, images: Tensor) -> dict[str, list[float]]:
    """`score` of each image of a batch (B, 3, n, n), as lists."""
    found = [score(image, truth) for image, truth in zip(images, problem.truths, strict=True)]
    return {name: [entry[name] for entry in found] for name in found[0]}


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
