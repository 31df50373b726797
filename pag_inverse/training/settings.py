"""The settings of a training run: what defines it, and where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from operators.validation import Count, NonNegative, Positive, Unit, Whole, settings

Kind = Literal["pixel", "autoencoder", "latent"]
Precision = Literal["float32", "bf16"]
DEFAULT_CROPS = {"pixel": "64:0.8,128:0.2", "autoencoder": "64:0.9,128:0.1", "latent": "128:0.85,256:0.15"}


def _read_crops(value: object) -> object:
    """A text such as 64:0.8,128:0.2 as pairs of a side and its share."""
    if not isinstance(value, str):
        return value
    try:
        pairs = [part.split(":") for part in value.split(",")]
        return tuple((int(side), float(share)) for side, share in pairs)
    except ValueError:
        raise ValueError(f"crops is {value!r}; it must read like 64:0.8,128:0.2") from None


def _check_crops(crops: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    if not crops or any(side < 32 or side % 32 or share <= 0 for side, share in crops):
        raise ValueError("sides must be multiples of 32 and shares above 0")
    return crops


CropSizes = Annotated[tuple[tuple[int, float], ...], BeforeValidator(_read_crops), AfterValidator(_check_crops)]


@settings
class TrainSettings:
    """What defines a run: equal settings and equal pictures make equal runs.

    `crops`: sides in pixels and their shares of the batches. `batch`: crops of the smallest side, for each process.
    `init`: the safetensors file that the run starts from. `sigma_limit`: the loss is weighted by min(sigma, this).
    `recolour`: the share of crops whose colours are permuted and saturated. `kl_weight` holds for an autoencoder.
    """

    kind: Kind
    crops: CropSizes
    steps: Count = 20000
    batch: Count = 16
    learning_rate: Positive = 8e-4
    warmup: Whole = 200
    ema: Unit = 0.9995
    seed: Whole = 0
    precision: Precision = "float32"
    init: str | None = None
    sigma_limit: Positive = 4.0
    recolour: Unit = 0.0
    kl_weight: NonNegative = 1e-4


@settings
class RunOptions:
    """Where a run reads and writes, and how often it reports; none of it changes the weights.

    `data`: the folder of pictures, searched below it too. `output`: the folder of the run. `autoencoder`: the folder
    of a trained autoencoder, for kind latent. `card_note`: a sentence for the model card. `preview_every` 0: never.
    """

    data: Path
    output: Path
    autoencoder: Path | None = None
    card_note: str | None = None
    device: str = "cpu"
    save_every: NonNegative = 120.0  # seconds
    validate_every: Count = 1000  # steps
    preview_every: Whole = 5000  # steps
