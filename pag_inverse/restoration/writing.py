"""What the solve command leaves behind of a picture: its files and its entry."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pag_inverse.data.images import Picture, png_bytes, to_uint8
from pag_inverse.metrics.paired import psnr, ssim
from pag_inverse.reports.figures import comparison, deviation_map, error_map, residual_curve
from pag_inverse.restoration.batches import Samples
from pag_inverse.restoration.recipe import Recipe
from pag_inverse.restoration.subjects import Subject
from pag_inverse.storage.entries import ItemEntry, Number, Text
from pag_inverse.storage.files import npy, sha256
from pag_inverse.storage.run_store import RunStore


class SolveEntry(ItemEntry):
    """A picture that the solve command restored: PSNR and SSIM by what is compared, its residual, and its deviation."""

    input: Text
    metrics: dict[str, dict[str, Number]]
    sigma: float | None
    sigma_is_estimated: bool = False
    residual: Number
    deviation: dict[str, Any] | None = None


def write(recipe: Recipe, store: RunStore, subject: Subject, kept: Samples) -> str | None:
    """Write a picture's files and entry; why it failed, None where it did not."""
    entry: dict[str, Any] = {
        "input": subject.source,
        "input_sha256": subject.sha256,
        "seed": recipe.request.seed,
        "seconds": round(kept.seconds, 3),
    }
    if error := kept.failure():
        store.finish(subject.name, {**entry, "error": error})
        return error
    simulated, sigma = recipe.request.measurement is None, recipe.noise_of(subject).sigma
    truth = subject.image if simulated else subject.truth
    samples = torch.stack([kept.images[s] for s in sorted(kept.images)]).clamp(-1, 1)
    restored = restored_pictures(samples)
    pictures = {
        **restored,
        "measurement": to_uint8(kept.y),
        "comparison": comparison(tiles(truth, kept, samples)),
        "residual": residual_curve(kept.residuals[0], level=1.0 if sigma > 0 else None),
    }
    files = {kind: (f"{subject.name}_{kind}.png", png_bytes(picture)) for kind, picture in pictures.items()}
    if kept.explanation is not None:
        for kind in recipe.request.explain:
            files[f"explain_{kind}"] = (f"{subject.name}_explain.{kind}", kept.explanation.to_bytes(kind))
    files["measurement_array"] = (f"{subject.name}_measurement.npy", npy(kept.y))
    for kind, array in kept.drawn.items() if simulated else ():
        files[f"{kind}_array"] = (f"{subject.name}_{kind}.npy", npy(array))
    if len(samples) > 1:
        files["std_array"] = (f"{subject.name}_std.npy", npy(samples.std(dim=0)))
        entry["deviation"] = describe_deviation(samples)
    entry |= {
        "metrics": {} if truth is None else metrics(truth, kept, restored),
        "sigma": sigma if recipe.sigma_is_known else None,
        **({"sigma_is_estimated": True} if subject.sigma is not None else {}),
        **({"compression": asdict(subject.own.compression)} if subject.own.compression else {}),
        "residual": kept.residuals[0][-1],
        "residuals": kept.residuals,
        "restoration_sha256": sha256(pictures["restoration"].tobytes()),
    }
    store.finish(subject.name, entry, files)
    return None


def restored_pictures(samples: Tensor) -> dict[str, Picture]:
    """The first sample is the restoration; of several, the others too, their mean and a map of their deviation."""
    pictures = {"restoration": to_uint8(samples[0])}
    if len(samples) > 1:
        pictures |= {f"sample{s}": to_uint8(x) for s, x in enumerate(samples) if s > 0}
        pictures |= {"mean": to_uint8(samples.mean(dim=0)), "std": comparison([deviation_map(samples)])}
    return pictures


def describe_deviation(samples: Tensor) -> dict[str, Any]:
    """What the numbers of NAME_std.npy and the colours of NAME_std.png mean.

    The array is the standard deviation over the samples of each pixel and channel, (3, H, W), on the [-1, 1] range of
    the samples. The picture shows its mean over the channels in levels of 255, in colours from 0 to `picture_top`.
    """
    _, shown = deviation_map(samples)
    return {
        "samples": len(samples),
        "ddof": 1,
        "range": [-1, 1],
        "mean": float(samples.std(dim=0).mean()),
        "picture_unit": "levels of 255, mean over the channels",
        "picture_top": shown.top,
    }


def tiles(truth: NDArray[np.float32] | None, kept: Samples, samples: Tensor) -> list[tuple[str, Any]]:
    """The comparison picture from left to right: truth where there is one, measurement, restoration, error."""
    row: list[tuple[str, Any]] = [("measurement", kept.enlarged), ("restoration", samples[0])]
    if len(samples) > 1:
        row += [(f"mean of {len(samples)}", samples.mean(dim=0)), deviation_map(samples)]
    if truth is not None:
        row = [("truth", truth), *row, error_map(samples[0].numpy(), truth)]
    return row


def metrics(image: NDArray[np.float32], kept: Samples, restored: dict[str, Picture]) -> dict[str, dict[str, float]]:
    """PSNR and SSIM of what was saved, and of the measurement enlarged to the picture."""
    truth = to_uint8(image)
    pictures: dict[str, Picture] = {kind: restored[kind] for kind in ("restoration", "mean") if kind in restored}
    pictures["measurement"] = to_uint8(kept.enlarged)
    return {kind: {"psnr": psnr(p, truth), "ssim": ssim(p, truth)} for kind, p in pictures.items()}
