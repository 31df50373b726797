"""What the pipeline command is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from operators.validation import Count, Names, NonNegative, Whole, settings
from pag_inverse.settings.request import Device


@settings
class PipelineRequest:
    """What the command is asked for: a preset of PIPELINES, and what replaces its values.

    `s` and `layers` None are the preset's. `cfg` is diffusers' guidance_scale, 1 is off. `noise_level` is the noise on
    the small picture of the upscaler, in its own timesteps.
    """

    name: Literal["pose", "depth", "inpaint", "upscale"]
    s: NonNegative | None = None
    layers: Names | None = None
    cfg: Annotated[float, Field(ge=1)] = 1.0
    prompt: str = ""
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    noise_level: Annotated[int, Field(ge=0, le=350)] = 20
    samples: Count = 1
    seed: Whole = 0
    device: Device = "cpu"
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
