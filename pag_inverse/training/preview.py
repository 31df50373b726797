"""What a network in training can do: restorations of held-out photographs, and samples of the prior alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pag_inverse.data.images import prepare, read_image, to_uint8, write_png
from pag_inverse.guidance import NoGuidance
from pag_inverse.metrics.paired import psnr
from pag_inverse.priors import LatentPrior, PixelPrior, Prior
from pag_inverse.priors.checkpoints.diffusers_folder import load_autoencoder
from pag_inverse.restoration.restore import restore
from pag_inverse.schedule import BETAS
from pag_inverse.settings import load_prior_config
from pag_inverse.solvers import Solver, default_solver, make_solver

WHOLE, SIDE = 256, 128  # a preview is the middle SIDE x SIDE of a picture at WHOLE pixels
PICTURES = 2
TASKS = ("gaussian_deblur", "super_resolution")


def draw_preview(
    model: Any, kind: str, autoencoder: Path | None, files: list[Path], output: Path, steps: int | None = None
) -> dict[str, float]:
    """Write a picture with a row for each of a few photographs; what each task gains over its measurement, dB.

    A row: the truth; measurement and restoration of each task; a sample of the prior alone. Of an autoencoder: the
    truth and its round trip. `steps` in place of those of the task's row.
    """
    truths = read_truths(files[:PICTURES])
    with torch.autocast(next(model.parameters()).device.type, enabled=False):
        if kind == "autoencoder":
            columns, gains = [truths, round_trip(model, truths)], dict[str, float]()
        else:
            names = [file.stem for file in files[:PICTURES]]
            columns, gains = restorations(as_prior(model, kind, autoencoder), kind, names, truths, steps)
    rows = [np.concatenate([to_uint8(column[b].cpu()) for column in columns], axis=1) for b in range(len(truths))]
    write_png(output, np.concatenate(rows))
    return gains


def read_truths(files: list[Path]) -> Tensor:
    """The middle of each picture, (B, 3, SIDE, SIDE)."""
    truths = torch.stack([torch.from_numpy(prepare(read_image(file), WHOLE)) for file in files])
    first = (WHOLE - SIDE) // 2
    return truths[..., first : first + SIDE, first : first + SIDE].contiguous()


def round_trip(autoencoder: Any, x: Tensor) -> Tensor:
    """Encode and decode images (B, 3, H, W)."""
    x = x.to(next(autoencoder.parameters()).device)
    decoded: Tensor = autoencoder.decode(autoencoder.encode(x).latent_dist.mean).sample
    return decoded


def restorations(
    prior: Prior, kind: str, names: list[str], truths: Tensor, steps: int | None
) -> tuple[list[Tensor], dict[str, float]]:
    """The columns of a preview, each (B, 3, SIDE, SIDE), and the mean gain of each task in PSNR, dB."""
    solver = default_solver(kind)
    columns, gains = [truths], dict[str, float]()
    for task in TASKS:
        # names may repeat in a folder with subfolders
        keys = [f"{b} {name}" for b, name in enumerate(names)]
        output = restore(truths, task=task, prior=prior, solver=solver, guidance=NoGuidance(), steps=steps, names=keys)
        before, after = output.problem.operator.enlarge(output.problem.y).clamp(-1, 1), output.x[:, 0]
        gains[task] = round(mean_psnr(after, truths) - mean_psnr(before, truths), 3)
        columns += [before, after]
    alone = without_measurement(make_solver(solver, {}))
    sample = restore(output.problem, prior=prior, solver=alone, guidance=NoGuidance(), steps=steps)
    return [*columns, sample.x[:, 0]], gains


def without_measurement(solver: Solver) -> Solver:
    """The solver with step sizes of 0: what it draws is a sample of the prior alone."""
    return replace(solver, **dict.fromkeys(solver.STEP_SIZES, 0.0))  # type: ignore[type-var]


def mean_psnr(images: Tensor, truths: Tensor) -> float:
    """The mean PSNR of images (B, 3, H, W) as they would be saved, dB."""
    found = [psnr(to_uint8(x.cpu()), to_uint8(truth)) for x, truth in zip(images, truths, strict=True)]
    return float(np.mean(found))


def as_prior(model: Any, kind: str, autoencoder: Path | None) -> Prior:
    """The network in training as a prior, which views it and leaves it as it is."""
    config = load_prior_config(kind).betas
    betas = BETAS[config.schedule](config.start, config.end)
    if kind == "pixel":
        return PixelPrior(model, betas)
    if autoencoder is None:
        raise ValueError("a latent network needs the folder of its autoencoder")
    return LatentPrior(model, load_autoencoder(autoencoder).to(model.device), betas)
