"""What a restoration is set to, validated: the same class serves the command line, evaluations and Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from operators.validation import Interval, Names, NonNegative, Peak, Sigma, settings
from pag_inverse.settings.names import AUTO, EXPLAIN_FORMATS, TRAINING_STEPS


def _check_device(name: str) -> str:
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ValueError("it must be cpu, cuda, cuda:N or mps")
    return name


def _check_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    for name in formats:
        if name not in EXPLAIN_FORMATS:
            raise ValueError(f"an unknown format {name!r}; there are {', '.join(EXPLAIN_FORMATS)}")
    return tuple(dict.fromkeys(formats))


Formats = Annotated[tuple[str, ...], AfterValidator(_check_formats)]


def read_colour(text: str) -> tuple[int, int, int]:
    """A colour as #RRGGBB or R,G,B from 0 to 255; ValueError for anything else.

    >>> read_colour("#ff0080"), read_colour("255,0,128")
    ((255, 0, 128), (255, 0, 128))
    """
    if hexadecimal := re.fullmatch(r"#?([0-9a-fA-F]{6})", text.strip()):
        red, green, blue = bytes.fromhex(hexadecimal[1])
        return red, green, blue
    if decimal := re.fullmatch(r"(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})", text.strip(), re.ASCII):
        red, green, blue = (int(number) for number in decimal.groups())
        if max(red, green, blue) <= 255:
            return red, green, blue
    raise ValueError("it must be R,G,B with numbers from 0 to 255, or #RRGGBB")


def _check_colour(text: str) -> str:
    read_colour(text)
    return text


Colour = Annotated[str, AfterValidator(_check_colour)]
Device = Annotated[str, AfterValidator(_check_device)]
Steps = Annotated[int, Field(ge=1, le=TRAINING_STEPS)]


def described(text: str) -> Any:
    """A field with a line for `--set help`."""
    return Field(description=text)


@settings
class SolveRequest:
    """Everything that a run of `solve` is set to; None is the task's, the row's or the prior's own.

    `solver` auto is the one that the task recommends for the prior. `options` are the solver's own, in place of the
    row's; `batch_size` None is as many images as fit. `explain` has the formats of the pictures that explain guidance.
    `measurement`, `mask`, `kernel` and `truth` are files, or folders whose files are matched by name. `remove_colour`
    is #RRGGBB or R,G,B; `grow` None is 2 pixels with it, else 0.
    """

    task: str
    solver: str = AUTO
    prior: str | None = None
    dataset: str | None = None
    measurement: Path | None = None
    mask: Path | None = None
    kernel: Path | None = None
    truth: Path | None = None
    mask_convention: Literal["white-measured", "white-missing"] = "white-measured"
    remove_colour: Colour | None = None
    colour_tolerance: Annotated[int, Field(ge=0, le=254)] = 24
    grow: Annotated[int, Field(ge=0, le=256)] | None = None
    scale: Annotated[int, Field(ge=1, le=64)] | None = None
    skip_unreadable: bool = False
    sigma: Sigma | None = None
    box: tuple[int, int, int, int] | None = None
    prompt: str | None = None
    pag: NonNegative | None = None
    layers: Names | None = None
    perturbation: str | None = None
    cfg: NonNegative = 1.0
    steps: Steps | None = None
    speed: Literal["exact", "fast", "draft"] = "exact"
    options: Mapping[str, Any] = Field(default_factory=dict)
    pag_interval: Annotated[Interval | None, described("lowest and highest t / 1000 at which PAG acts")] = None
    combination: Annotated[
        str | None, described("of the guidance: plain, or apg:radius=15.0,eta=0.0 (clipped, across eps)")
    ] = None
    adaptive_scale: Annotated[NonNegative | None, described("a of s(t) = max(0, s - a (1000 - t)), for PAG's s")] = None
    tuned_steps: Annotated[Steps | None, described("step sizes are meant for so many steps: bring them to --steps")] = (
        None
    )
    project: Annotated[
        Literal["published", "adjoint"] | None, described("the map T of the gluing term: the table's, or A*")
    ] = None
    peak: Annotated[Peak | None, described("of poisson noise: photons at white; by default the task's")] = None
    noise_in_hole: Annotated[bool | None, described("noise also where nothing was measured, as published")] = None
    resize: Annotated[
        Literal["bicubic", "reference"], described("of pictures: antialiased, or the published programs' way")
    ] = "bicubic"
    composite: Annotated[
        Literal["none", "measurement"], described("measurement: paste the measured pixels into the result")
    ] = "none"
    composite_edge: Annotated[
        int, Field(ge=0, le=256, description="pixels around a hole over which pasted pixels fade in")
    ] = 0
    compile: Annotated[bool, described("torch.compile the networks: minutes to start, then faster")] = False
    channels_last: Annotated[bool, described("tensors of the networks with channels innermost")] = False
    tf32: Annotated[
        bool | None, described("10-bit factors in float32 products on a GPU; by default torch's choice")
    ] = None
    size: Annotated[int, Field(ge=1, le=2**16)] | None = None
    whole: bool = False
    tile: Annotated[int, Field(ge=0, le=2**16)] | None = None
    overlap: Annotated[int, Field(ge=0, le=2**16)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    samples: Annotated[int, Field(ge=1, le=10**5)] = 1
    batch_size: Annotated[int, Field(ge=1, le=2**16)] | None = 1
    device: Device = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    low_memory: bool = False
    weights_dir: Path | None = None
    prior_config: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    download: bool = False
    explain: Formats = ()

    @property
    def noise_is_known(self) -> bool:
        """False for a measurement without a sigma or a peak."""
        return self.measurement is None or self.sigma is not None or self.peak is not None


# Fields that are set by `--set KEY=VALUE`, beside the solver's options.
FURTHER_OPTIONS = tuple(
    name
    for name, field in SolveRequest.__pydantic_fields__.items()  # type: ignore[attr-defined]
    if field.description
)
