"""The shape of the lines that search, ablation and comparison keep."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from pag_inverse.storage.entries import ItemEntry, Line, Number


class TrialEntry(ItemEntry):
    """A setting of a search, and what it scored on the training pictures."""

    options: dict[str, Any]
    s: float
    layers: list[str]
    steps: int
    mean_psnr: float
    psnr: float
    sharpness: float
    residual: Number
    seconds: float


class AblationEntry(ItemEntry):
    """A restoration of one picture by one variant."""

    psnr: float
    ssim: float
    passes: int
    cpu_seconds: float


class JobEntry(ItemEntry):
    """A restoration of a comparison, or the tuned strength of a classical method."""

    strength: Any = None
    psnr: Number = None
    ssim: Number = None
    sharpness: Number = None
    residual: Number = None
    passes: dict[str, int] | None = None
    seconds: Number = None
    cpu_seconds: Number = None

    @model_validator(mode="after")
    def _complete(self) -> JobEntry:
        given = self.model_fields_set
        if "strength" not in given and not {"psnr", "ssim", "sharpness", "residual"} <= given:
            raise ValueError("scores are missing")
        if "strength" not in given and not {"restoration", "truth"} <= set(self.files):
            raise ValueError("files are missing")
        return self


class DistanceLine(Line):
    """LPIPS of a restoration, by a digest of the network and of both pictures."""

    key: str
    lpips: float


class SweepEntry(ItemEntry):
    """A picture that was restored or sampled under one setting of a sweep; its PNG is the file `picture`."""

    solver: str
    s: float
    layers: list[str]
    perturbation: str
    combination: str
    psnr: Number = None
    ssim: Number = None
    sharpness: Number = None
    residual: Number = None
    seconds: float
