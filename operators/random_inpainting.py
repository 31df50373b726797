"""Random inpainting: single pixels are missing, all over the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BeforeValidator

from operators.base import Projection, Shape
from operators.inpainting import Inpainting, random_mask
from operators.validation import Interval, settings

__all__ = ["RandomInpainting", "RandomInpaintingSettings"]


def _both_ends(value: object) -> object:
    """One share stands for an interval of that share alone."""
    return (value, value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@settings
class RandomInpaintingSettings:
    """`missing`, the share of missing pixels from 0 to 1; or `[lowest, highest]`, between which it is drawn for each
    image; `project` as in `Operator`."""

    missing: Annotated[Interval, BeforeValidator(_both_ends)]
    project: Projection = "published"


class RandomInpainting(Inpainting):
    """Inpainting of single pixels, drawn for each image: y = m x (Chung et al., 2023, random inpainting: 92 %).

    One mask is drawn from each generator of `rngs`; see `random_mask`. `missing` is the lowest and the highest share.
    ValueError: no generator, or a mask without a known pixel.
    """

    Settings: ClassVar[type] = RandomInpaintingSettings

    def __init__(
        self,
        in_shape: Shape,
        rngs: Sequence[np.random.Generator],
        missing: tuple[float, float] = (0.7, 0.7),
        *,
        project: str = "published",
    ) -> None:
        if not rngs:
            raise ValueError("no random generator: give one for each image")
        super().__init__(np.stack([random_mask(in_shape, rng, *missing) for rng in rngs]), in_shape, project=project)

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: RandomInpaintingSettings, rngs: Sequence[np.random.Generator]
    ) -> RandomInpainting:
        return cls(in_shape, rngs, settings.missing, project=settings.project)
