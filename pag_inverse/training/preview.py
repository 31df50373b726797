"""A strip that shows what a network in training can do: restorations, and samples of the prior alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pag_inverse.experiments import trials
from pag_inverse.settings.files import load_task
from pag_inverse.data.images import to_uint8, write_png
from pag_inverse.priors import LatentPrior, PixelPrior, Prior
from pag_inverse.schedule import BETAS
from pag_inverse.settings.tables import Hyperparameters

SIDE = 128
PICTURES = 2
TASKS = ("gaussian_deblur", "super_resolution")
SOLVERS = {"pixel": ("dps", "linear"), "latent": ("psld", "scaled_linear")}


def draw_strip(
    model: Any, kind: str, autoencoder: Path | None, files: list[Path], output: Path, steps: int | None = None
) -> dict[str, float]:
    """Write a picture with a row for each of a few held-out photographs; what each task gains over its measurement, dB.

    A row: the truth; measurement and restoration of each task; a sample of the prior alone. Of an autoencoder: the
    truth and its round trip. `steps` in place of the row's.
    """
    truths = trials.read_truths(files[:PICTURES], SIDE).to(next(model.parameters()).device)
    with torch.autocast(truths.device.type, enabled=False):
        if kind == "autoencoder":
            columns, gains = [truths, model.decode(model.encode(truths).latent_dist.mean).sample], dict[str, float]()
        else:
            names = [file.stem for file in files[:PICTURES]]
            columns, gains = restorations(as_prior(model, kind, autoencoder), kind, names, truths, steps)
    rows = [np.concatenate([to_uint8(column[b]) for column in columns], axis=1) for b in range(len(truths))]
    write_png(output, np.concatenate(rows))
    return gains


def restorations(
    prior: Prior, kind: str, names: list[str], truths: Tensor, steps: int | None
) -> tuple[list[Tensor], dict[str, float]]:
    solver, _ = SOLVERS[kind]
    columns, gains = [truths], dict[str, float]()
    for task in TASKS:
        settings = load_task(task, "natural", solver, image_size=trials.SIDE, pag=False)
        assert settings.hyperparameters is not None
        row = settings.hyperparameters.at_side(SIDE)
        problem = trials.make_problem(settings, names, truths, seed=0)
        restored = restore(problem, prior, solver, row.eta, row.gamma, steps or row.steps)
        before, after = problem.operator.enlarge(problem.y).clamp(-1, 1), restored
        gained = [trials.mean(trials.scores(problem, x)["psnr"]) for x in (before, after)]
        gains[task] = round(gained[1] - gained[0], 3)
        columns += [before, after]
    alone = restore(problem, prior, solver, 0.0, None if kind == "pixel" else 0.0, steps or row.steps)
    return [*columns, alone], gains


def restore(problem: trials.Problem, prior: Prior, solver: str, eta: float, gamma: float | None, steps: int) -> Tensor:
    """One sample of each picture; with step sizes of 0, of the prior alone."""
    row = Hyperparameters(eta, gamma, steps=steps)
    return trials.restore_samples(problem, prior, solver, row, 1).samples[0].nan_to_num(0.0)


def as_prior(model: Any, kind: str, autoencoder: Path | None) -> Prior:
    """The network in training as a prior: a copy, since a prior freezes its parameters."""
    unet, betas = copy.deepcopy(model), BETAS[SOLVERS[kind][1]]()
    if kind == "pixel":
        return PixelPrior(unet, betas)
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(autoencoder, local_files_only=True).to(unet.device).float()
    return LatentPrior(unet, vae, betas)
