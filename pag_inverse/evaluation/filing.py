"""What an evaluation keeps of an image: its pictures, its measurement and its line."""

from __future__ import annotations

import resource
import sys
from typing import Any

import numpy as np
import torch

from pag_inverse.evaluation.cells import Ready
from pag_inverse.restoration.subjects import Subject
from pag_inverse.restoration.writing import Gathered
from pag_inverse.restoration.recipe import build_operator, residual_unit
from pag_inverse.data.images import from_uint8, prepare, to_uint8
from pag_inverse.storage.saved import npy, png

CURVE_POINTS = 100


def write(cell: Ready, subject: Subject, kept: Gathered, rank: int) -> None:
    """Save an image's truth, measurement and restorations, then its line."""
    if kept.failed:
        where = ", ".join(f"sample {s} at step {step}" for s, step in kept.failed.items())
        cell.saved.finish(rank, {"image": subject.name, "error": f"left the finite numbers ({where})"}, {})
        return
    samples = [kept.samples[s] for s in sorted(kept.samples)]
    pictures = [to_uint8(x.clamp(-1, 1)) for x in samples]
    truth = to_uint8(prepare(subject.image, cell.metric_size, cell.request.resize))
    files = {
        "truth": (cell.truths() / f"{subject.name}.png", png(truth)),
        "measurement": (cell.measurements() / f"{subject.name}.npy", npy(kept.y)),
    }
    for s, picture in enumerate(pictures):
        suffix = f"_sample{s}" if s else ""
        files[f"restoration{s}"] = (cell.saved.folder / "restorations" / f"{subject.name}{suffix}.png", png(picture))
    entry = {
        "image": subject.name,
        "residual": residuals(cell, subject, kept, pictures),
        "curve": thinned(kept.residuals[0]),
        "seconds": round(kept.seconds / len(samples), 4),
        "peak_memory_mb": peak_memory(cell.request.device),
    }
    cell.saved.finish(rank, entry, files)


@torch.no_grad()
def residuals(cell: Ready, subject: Subject, kept: Gathered, pictures: list[Any]) -> list[float]:
    """||y - A x|| / (sigma sqrt m) over what was measured, of each restoration as it is saved."""
    operator = build_operator(cell.request, cell.setup, [subject])
    assert kept.y is not None
    y = kept.y[None].to(cell.request.device)
    unit, found = residual_unit(cell.request, operator, y), []
    for picture in pictures:
        x = torch.from_numpy(from_uint8(picture))[None].to(cell.request.device)
        left = (y - operator.forward(x)) * operator.observation_mask(y)
        found.append(float(left.norm() / unit[0]))
    return found


def thinned(curve: list[float]) -> list[float]:
    """At most a hundred points of a curve, its last among them."""
    if len(curve) <= CURVE_POINTS:
        return curve
    places = np.linspace(0, len(curve) - 1, CURVE_POINTS).round().astype(int)
    return [curve[i] for i in places]


def peak_memory(device: str) -> float:
    """The most this process has held so far in megabytes: on the GPU, where there is one."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
