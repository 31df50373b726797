"""What the pages are made of: plain data, which evaluations and comparisons fill from what they saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pag_inverse.metrics.summary import Difference, Metric


@dataclass(frozen=True)
class ImageResult:
    """One restored image of a run.

    `psnr` (of the first sample, dB; None where it was not scored) orders the pictures of the page. `curve` is the first
    sample's residual over the steps, in units of sigma sqrt m where sigma is known. `seconds` is the time of one
    sample. `truth` and `restoration` (of the first sample) are PNG files, `measurement` is a .npy (3, H, W) in [-1, 1].
    """

    psnr: float | None
    seconds: float
    samples: int
    peak_memory_mb: float | None
    curve: Sequence[float]
    truth: Path
    measurement: Path
    restoration: Path


@dataclass(frozen=True)
class RunReport:
    """One run of an evaluation: a task, a solver and a guidance on a data set.

    `settings` holds at least `task`, `solver`, `s` (the PAG scale), `images` (the kind of data set), `dataset` (whose
    rows of the tables) and `sigma`; everything in it is printed. `images` are the restored ones by id, `failures` the
    reasons by id. `measurement` has the metrics of the measurements themselves, enlarged to the pictures' size, where
    they are pictures. Two runs whose names differ by a final `_pag` are shown side by side.
    """

    name: str
    settings: Mapping[str, Any]
    metrics: Sequence[Metric]
    images: Mapping[str, ImageResult]
    failures: Mapping[str, str] = field(default_factory=dict)
    measurement: Sequence[Metric] = ()


@dataclass(frozen=True)
class Change:
    """With PAG minus without, paired by picture: of the run without PAG, `run`, and that of the same name with it."""

    run: str
    differences: Sequence[Difference]


@dataclass(frozen=True)
class EvaluationReport:
    """The runs of an evaluation; `variants` says of each metric, by its name, how it is computed.

    `changes` has what PAG changes in each pair of runs.
    """

    runs: Sequence[RunReport]
    variants: Mapping[str, str]
    changes: Sequence[Change] = ()


@dataclass(frozen=True)
class Restoration:
    """One restoration of a comparison: `scores` by name (psnr, ssim, sharpness, residual, lpips where known).

    `passes` are those of the networks by kind: `forward`, `backward`, `autoencoder_forward`, `autoencoder_backward`.
    `costs`, where known, are its `seconds` and `cpu_seconds`: the latter of all cores together.
    """

    method: str
    picture: str
    sample: int
    scores: Mapping[str, float]
    file: Path
    passes: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparisonReport:
    """The restorations of a comparison, by task, with the truth (a PNG) of each picture.

    `tuned` holds what was tuned of a classical method, by `task.method`; `about_lpips` and `notes` are sentences of the
    page. `reference` is the method that all others are compared with, where it is there.
    """

    size: int
    seed: int
    truths: Mapping[str, Path]
    tasks: Mapping[str, Sequence[Restoration]]
    tuned: Mapping[str, Any] = field(default_factory=dict)
    about_lpips: str = ""
    notes: Sequence[str] = ()
    reference: str = ""
