"""What the solve command leaves behind: an image's pictures and metrics, and the last lines on the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pag_inverse.restoration.subjects import Subject
from pag_inverse.storage.records import RunFolder, sha256
from pag_inverse.restoration.request import Request
from pag_inverse.data.images import to_uint8
from pag_inverse.metrics.paired import psnr, ssim
from pag_inverse.reports.figures import comparison, error_map, residual_curve


@dataclass
class Gathered:
    """The samples of one subject so far."""

    samples: dict[int, Tensor] = field(default_factory=dict)
    residuals: dict[int, list[float]] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    y: Tensor | None = None
    enlarged: Tensor | None = None
    seconds: float = 0.0


def write(request: Request, folder: RunFolder, subject: Subject, kept: Gathered) -> bool:
    """Write an image's files and entry; True if one of its samples left the finite numbers."""
    entry: dict[str, Any] = {
        "input": subject.source,
        "input_sha256": subject.sha256,
        "seed": request.seed,
        "seconds": round(kept.seconds, 3),
    }
    if kept.failed:
        where = ", ".join(f"sample {s} at step {step}" for s, step in kept.failed.items())
        print(f"solve: {subject.name} left the finite numbers ({where})", file=sys.stderr)
        folder.finish(subject.name, {}, {}, {**entry, "failed": kept.failed})
        return True
    samples = torch.stack([kept.samples[s] for s in sorted(kept.samples)]).clamp(-1, 1)
    restored = restored_pictures(samples)
    pictures = {
        **restored,
        "measurement": to_uint8(kept.y),
        "comparison": comparison(tiles(request, subject, kept, samples)),
        "residual": residual_curve(kept.residuals[0], level=1.0 if request.sigma else None),
    }
    entry |= {
        "metrics": metrics(subject, kept, restored) if request.measurement is None else {},
        "residual": kept.residuals[0][-1],
        "residuals": kept.residuals,
        "restoration_sha256": sha256(pictures["restoration"].tobytes()),
    }
    folder.finish(subject.name, pictures, {"measurement": kept.y}, entry)
    return False


def restored_pictures(samples: Tensor) -> dict[str, Any]:
    """The first sample is the restoration; of several, the others too, their mean and their deviation."""
    pictures = {"restoration": to_uint8(samples[0])}
    if len(samples) > 1:
        pictures |= {f"sample{s}": to_uint8(x) for s, x in enumerate(samples) if s > 0}
        pictures |= {"mean": to_uint8(samples.mean(dim=0)), "std": to_uint8(deviation(samples)[1])}
    return pictures


def deviation(samples: Tensor) -> tuple[str, Tensor]:
    """A titled tile: the samples' standard deviation, mean over the channels, white at its largest."""
    std = samples.std(dim=0).mean(dim=0, keepdim=True)
    largest = float(std.max().clamp_min(1e-6))
    return f"std, white = {127.5 * largest:.0f} of 255", std / largest * 2 - 1


def tiles(request: Request, subject: Subject, kept: Gathered, samples: Tensor) -> list[tuple[str, Any]]:
    """The comparison picture from left to right: truth where there is one, measurement, restoration, error."""
    row: list[tuple[str, Any]] = [("measurement", kept.enlarged), ("restoration", samples[0])]
    if len(samples) > 1:
        row += [(f"mean of {len(samples)}", samples.mean(dim=0)), deviation(samples)]
    if request.measurement is None:
        row = [("truth", subject.image), *row, error_map(samples[0].numpy(), subject.image)]
    return row


def metrics(subject: Subject, kept: Gathered, restored: dict[str, Any]) -> dict[str, dict[str, float]]:
    """PSNR and SSIM of what was saved, and of the measurement enlarged to the picture."""
    truth = to_uint8(subject.image)
    pictures: dict[str, Any] = {kind: restored[kind] for kind in ("restoration", "mean") if kind in restored}
    pictures["measurement"] = to_uint8(kept.enlarged)
    return {kind: {"psnr": psnr(p, truth), "ssim": ssim(p, truth)} for kind, p in pictures.items()}


def summarise(folder: RunFolder) -> None:
    """A line an image, and where everything lies."""
    for name, entry in folder.images.items():
        scores = [f"{kind} {m['psnr']:.2f} dB, SSIM {m['ssim']:.3f}" for kind, m in entry.get("metrics", {}).items()]
        print(f"{name}: {'; '.join(scores) or ('failed' if 'failed' in entry else 'restored')}")
    print(f"written to {folder.folder}")
