"""The settings of a training run: what defines it, and where it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from operators.validation import Count, NonNegative, Positive, Unit, Whole, settings, short

Kind = Literal["pixel", "autoencoder", "latent"]
Precision = Literal["float32", "bf16"]
DEFAULT_CROPS = {"pixel": "64:0.8,128:0.2", "autoencoder": "64:0.9,128:0.1", "latent": "128:0.85,256:0.15"}


# Settings that do something for these kinds alone.
ONLY_FOR = {"kl_weight": ("autoencoder",), "sigma_limit": ("pixel", "latent"), "autoencoder": ("latent",)}
LARGEST_SIDE, SHARES, LONGEST_NOTE = 4096, (1e-6, 1e6), 2000


def _read_crops(value: object) -> object:
    """A text such as 64:0.8,128:0.2 as pairs of a side and its share."""
    if not isinstance(value, str):
        return value
    pairs = [re.fullmatch(r"([0-9]{1,9}):([0-9.eE+-]+)", part) for part in value.split(",")]
    try:
        return tuple((int(pair[1]), float(pair[2])) for pair in pairs)  # type: ignore[index]
    except (TypeError, ValueError):
        raise ValueError(f"crops is {short(value)}; it must read like 64:0.8,128:0.2") from None


def _check_crops(crops: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    sides = [side for side, _ in crops]
    if not crops or any(not 32 <= side <= LARGEST_SIDE or side % 32 for side in sides):
        raise ValueError(f"sides must be multiples of 32, at most {LARGEST_SIDE}")
    if any(not SHARES[0] <= share <= SHARES[1] for _, share in crops):
        raise ValueError(f"shares must be above 0, from {SHARES[0]:g} to {SHARES[1]:g}")
    if len(set(sides)) < len(sides):
        raise ValueError("each side must be given once")
    return crops


def _check_note(note: str) -> str:
    """A note is written into a text file: it must be a sentence that UTF-8 can hold."""
    try:
        note.encode()
    except UnicodeEncodeError:
        raise ValueError("it must be a text in UTF-8") from None
    if not note.strip() or not note.isprintable() or len(note) > LONGEST_NOTE:
        raise ValueError(f"it must be one line of 1 to {LONGEST_NOTE} letters")
    return note


CropSizes = Annotated[tuple[tuple[int, float], ...], BeforeValidator(_read_crops), AfterValidator(_check_crops)]
Note = Annotated[str, AfterValidator(_check_note)]
Steps = Annotated[int, Field(ge=1, le=10**8)]
Warmup = Annotated[int, Field(ge=0, le=10**8)]
Batch = Annotated[int, Field(ge=1, le=10**6)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]


@settings
class TrainSettings:
    """What defines a run: equal settings and equal pictures make equal runs.

    `crops`: sides in pixels and their shares of the batches. `batch`: crops of the smallest side, for each process.
    `init`: the safetensors file that the run starts from. `sigma_limit`: the loss is weighted by min(sigma, this).
    `recolour`: the share of crops whose colours are permuted and saturated. `kl_weight` holds for an autoencoder,
    `sigma_limit` for the other kinds.
    """

    kind: Kind
    crops: CropSizes
    steps: Steps = 20000
    batch: Batch = 16
    learning_rate: Rate = 8e-4
    warmup: Warmup = 200
    ema: Decay = 0.9995
    seed: Seed = 0
    precision: Precision = "float32"
    init: str | None = None
    sigma_limit: Positive = 4.0
    recolour: Unit = 0.0
    kl_weight: Weight = 1e-4


@settings
class RunOptions:
    """Where a run reads and writes, and how often it reports; none of it changes the weights.

    `data`: the folder of pictures, searched below it too. `output`: the folder of the run. `autoencoder`: the folder
    of a trained autoencoder, for kind latent. `card_note`: a sentence for the model card. `preview_every` 0: never.
    """

    data: Path
    output: Path
    autoencoder: Path | None = None
    card_note: Note | None = None
    device: str = "cpu"
    save_every: NonNegative = 120.0  # seconds
    validate_every: Count = 1000  # steps
    preview_every: Whole = 5000  # steps


def check_used(kind: Kind, given: Iterable[str]) -> None:
    """ValueError where a setting that was given does nothing for this kind."""
    for name in given:
        if kind not in ONLY_FOR.get(name, (kind,)):
            flag, kinds = "--" + name.replace("_", "-"), " or ".join(ONLY_FOR[name])
            raise ValueError(f"{flag} does nothing with --kind {kind}; it goes with --kind {kinds} alone")


def unusual(settings: TrainSettings) -> list[str]:
    """The names of the settings that have another value than their default."""
    return [field.name for field in fields(settings) if getattr(settings, field.name) != field.default]
