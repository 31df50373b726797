"""What an evaluation keeps of an image: its pictures, its measurement and its entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pag_inverse.data.images import Picture, from_uint8, png_bytes, prepare, to_uint8
from pag_inverse.evaluation.runs import EvaluationRun
from pag_inverse.problem import InverseProblem
from pag_inverse.restoration.batches import Samples
from pag_inverse.restoration.recipe import Recipe
from pag_inverse.restoration.subjects import Subject
from pag_inverse.storage.files import npy

CURVE_POINTS = 100


def save(run: EvaluationRun, recipe: Recipe, subject: Subject, kept: Samples) -> None:
    """Save an image's truth, measurement and restorations, then its entry."""
    entry: dict[str, Any] = {"input_sha256": subject.sha256}
    if error := kept.failure():
        run.store.finish(subject.name, {**entry, "error": error})
        return
    pictures = [to_uint8(kept.images[s].clamp(-1, 1)) for s in sorted(kept.images)]
    truth = to_uint8(prepare(subject.image, run.metric_size, run.request.resize))
    files = {
        "truth": (f"{run.truths}/{subject.name}.png", png_bytes(truth)),
        "measurement": (f"{run.measurements}/{subject.name}.npy", npy(kept.y)),
    }
    for s, picture in enumerate(pictures):
        folder = f"restorations/sample{s}" if s else "restorations"
        files[f"restoration{s}"] = (f"{run.name}/{folder}/{subject.name}.png", png_bytes(picture))
    entry |= {
        "residual": residuals(recipe, subject, kept, pictures),
        "curve": thinned(kept.residuals[0]),
        "seconds": round(kept.seconds / len(pictures), 4),
        "peak_memory_mb": peak_memory_mb(run.request.device),
    }
    run.store.finish(subject.name, entry, files)


def residuals(recipe: Recipe, subject: Subject, kept: Samples, pictures: list[Picture]) -> list[float]:
    """||y - A x|| / (sigma sqrt m) over what was measured, of each restoration as it is saved."""
    assert kept.y is not None
    device = recipe.request.device
    problem = InverseProblem(kept.y[None].to(device), recipe.operator([subject]), recipe.noise)
    images = (torch.from_numpy(from_uint8(picture))[None].to(device) for picture in pictures)
    return [float(problem.relative_residual(image)) for image in images]


def thinned(curve: list[float]) -> list[float]:
    """At most a hundred points of a curve, its last among them."""
    if len(curve) <= CURVE_POINTS:
        return curve
    places = np.linspace(0, len(curve) - 1, CURVE_POINTS).round().astype(int)
    return [curve[i] for i in places]


def reset_peak_memory(device: str) -> None:
    """Begin the measurement of a run's peak."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: str) -> float | None:
    """The most GPU memory that the run's tensors, its networks among them, took so far; None on other devices.

    A processor's peak is the process's since it started, whatever ran in it: it is not told.
    """
    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if device.startswith("cuda") else None
