"""What an evaluation keeps on disk: the shape of its settings and lines, and its runs read back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from operators.validation import one_line
from pag_inverse.data.files import MANIFEST
from pag_inverse.storage.entries import ItemEntry, Line, Number
from pag_inverse.storage.files import wrong_file
from pag_inverse.storage.finding import find_runs
from pag_inverse.storage.run_store import RunStore

KIND = "evaluate"


class EvaluationSettings(Line):
    """Settings that reports and metrics rely on; see `Recipe.describe` and `Plan.source` for all of them."""

    task: str
    solver: str
    s: float
    images: str
    dataset: str | None
    sigma: float | None
    steps: int
    resize: Literal["bicubic", "reference"] = "bicubic"


class EvaluationEntry(ItemEntry):
    """A restored image: the residual of each sample, the first sample's curve, and what it cost."""

    residual: Annotated[list[Number], Field(min_length=1)]
    curve: list[Annotated[float, Field(le=1e30)] | None]
    seconds: float
    peak_memory_mb: float | None

    @model_validator(mode="after")
    def _has_its_files(self) -> EvaluationEntry:
        if missing := {"truth", "measurement", *(f"restoration{s}" for s in range(len(self.residual)))} - set(
            self.files
        ):
            raise ValueError(f"files are missing: {', '.join(sorted(missing))}")
        return self


class PictureScores(Line):
    """The metrics of a picture; null is the PSNR of equal pictures, which is infinite."""

    psnr: Number
    ssim: Number
    lpips: float | None = None


class Scores(PictureScores):
    """The metrics of one sample."""

    residual: Number


class ScoreLine(Line):
    """The scores of each sample of an image and of its measurement, and the pixels that were scored."""

    key: str
    lpips_net: str
    measurement: PictureScores | None = None
    scores: Annotated[list[Scores], Field(min_length=1)]


def saved_runs(folder: Path) -> list[RunStore]:
    """The runs of an evaluation, for reading; ValueError where there is none, or something of one is damaged."""
    stores = find_runs(folder, KIND, EvaluationEntry)
    for store in stores:
        _check(store)
    return stores


def readable_runs(root: Path) -> list[RunStore]:
    """The runs in the root of an evaluation that can be read; others are passed over."""
    found = []
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):
        try:
            store = RunStore.of(manifest.parent, EvaluationEntry)
            if store.kind == KIND and store.root == root.resolve():
                _check(store)
                found.append(store)
        except ValueError:
            continue
    return found


def _check(store: RunStore) -> None:
    try:
        EvaluationSettings.model_validate(store.settings)
    except ValidationError as error:
        raise ValueError(f"{store.folder}: its manifest is damaged: {one_line(error)}") from None
    for key, entry in store.entries().items():
        if wrong := wrong_file(entry, store.root):
            raise ValueError(f"{store.folder}: {key}: {wrong}; the command that made the run makes it again")
