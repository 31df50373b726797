"""Simulated problems whose truth is known, and their restorations in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import make_operator
from pag_inverse.data.images import prepare, read_image, to_uint8
from pag_inverse.guidance import GuidedModel
from pag_inverse.metrics.paired import psnr, sharpness, ssim
from pag_inverse.problem import InverseProblem, simulate, task_noise
from pag_inverse.restoration.loop import run_chain
from pag_inverse.runtime.batching import check_memory
from pag_inverse.runtime.streams import batch_draw, operator_rng, stream_seed
from pag_inverse.settings import TaskConfig
from pag_inverse.solvers import Solver

SIDE = 256  # of the pictures that the embedded priors' rows were tuned for


@dataclass(frozen=True)
class Trial:
    """Truths (B, 3, n, n) in [-1, 1] with their names, and the problem that was made of them."""

    names: tuple[str, ...]
    truths: Tensor
    problem: InverseProblem
    seed: int

    def select(self, numbers: Sequence[int]) -> Trial:
        """The trial of some pictures of the batch."""
        names = tuple(self.names[b] for b in numbers)
        return Trial(names, self.truths[list(numbers)], self.problem.select(numbers), self.seed)

    def singles(self) -> list[Trial]:
        """A trial for each picture."""
        return [self.select([b]) for b in range(len(self.names))]


@dataclass(frozen=True)
class Restorations:
    """Samples (S, B, 3, n, n), the residual of each over sigma sqrt(m), (S, B), and seconds for one sample.

    `cpu_seconds` are those of the processor, of all its cores together: other programs beside do not lengthen them.
    `failed` says of each picture, by its number, that a sample of it left the finite numbers, and at which step.
    """

    samples: Tensor
    residuals: Tensor
    seconds: float
    cpu_seconds: float
    failed: Mapping[int, str] = field(default_factory=dict)


def read_truths(files: Sequence[Path], side: int) -> Tensor:
    """The central squares of pictures at 256 pixels; a smaller `side` is cut out of their middle at that scale."""
    check_memory(side * len(files), side)
    truths = torch.stack([torch.from_numpy(prepare(read_image(file), max(side, SIDE))) for file in files])
    first = (truths.shape[-1] - side) // 2
    return truths[..., first : first + side, first : first + side].contiguous()


def make_trial(task: TaskConfig, names: Sequence[str], truths: Tensor, seed: int) -> Trial:
    """Degrade pictures as solve does, each with the operator and noise of its own name and the seed."""
    side = truths.shape[-1]
    settings = scaled_box(task.operator.settings, side) if side < SIDE else task.operator.settings
    rngs = [operator_rng(seed, name) for name in names]
    operator = make_operator(task.operator.name, (3, side, side), settings, rngs).to(truths.device, torch.float32)
    noise = task_noise(task)
    draw = batch_draw([stream_seed(seed, name, "measurement") for name in names], truths.device)
    problem = simulate(truths, operator, noise, draw=draw, noise_in_hole=task.noise_in_hole)
    return Trial(tuple(names), truths, problem, seed)


def described(task: TaskConfig) -> dict[str, Any]:
    """What of a task decides the measurements, for the settings of a run."""
    return {
        "operator": task.operator.name,
        "operator_settings": dict(task.operator.settings),
        "noise": task.noise,
        "sigma": task.sigma,
        **({} if task.peak is None else {"peak": task.peak}),
        "noise_in_hole": task.noise_in_hole,
    }


def scaled_box(settings: Mapping[str, Any], side: int) -> dict[str, Any]:
    """The box and its margin as large a part of a smaller picture as of a whole one; other settings as they are."""
    scaled = {key: settings[key] * side // SIDE for key in ("box", "margin") if settings.get(key) is not None}
    return {**settings, **scaled}


def restore_samples(
    trial: Trial,
    model: GuidedModel,
    solver: Solver,
    steps: int,
    samples: int,
    *,
    first: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> Restorations:
    """Posterior samples of each measurement, from number `first` on, one sample of every picture in a batch.

    `tick()` is called after each step.
    """

    def show(*_: object) -> None:
        tick()

    begun, cpu_begun, xs, residuals = time.monotonic(), time.process_time(), [], []
    failed: dict[int, str] = {}
    for sample in range(first, first + samples):
        seeds = [stream_seed(trial.seed, name, "sampling", sample) for name in trial.names]
        result = run_chain(trial.problem, model, solver, steps, seeds, callback=show)
        xs.append(result.x.clamp(-1, 1))
        residuals.append(trial.problem.relative_residual(xs[-1]))
        for b, step in result.failed.items():
            failed.setdefault(b, f"left the finite numbers (sample {sample} at step {step})")
    count = samples * len(trial.names)
    seconds, cpu_seconds = (time.monotonic() - begun) / count, (time.process_time() - cpu_begun) / count
    return Restorations(torch.stack(xs), torch.stack(residuals), seconds, cpu_seconds, failed)


def score(image: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR, SSIM and sharpness of one image as it would be saved; of NaN, the worst there are."""
    if not bool(torch.isfinite(image).all()):
        return {"psnr": 0.0, "ssim": 0.0, "sharpness": 0.0}
    picture, reference = to_uint8(image), to_uint8(truth)
    return {
        "psnr": psnr(picture, reference),
        "ssim": ssim(picture, reference),
        "sharpness": sharpness(picture, reference),
    }


def scores(trial: Trial, images: Tensor) -> dict[str, list[float]]:
    """`score` of each image of a batch (B, 3, n, n), as lists."""
    found = [score(image, truth) for image, truth in zip(images, trial.truths, strict=True)]
    return {name: [entry[name] for entry in found] for name in found[0]}


def mean(values: Sequence[float]) -> float:
    """The mean of numbers."""
    return float(np.mean(values))
