"""Operators and noises by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from operators.base import Operator, Shape
from operators.blur import GaussianBlur, MotionBlur
from operators.inpainting import BoxInpainting
from operators.noise import GaussianNoise, Noise, NoNoise
from operators.super_resolution import SuperResolution

OPERATORS: dict[str, type[Operator]] = {
    "box_inpainting": BoxInpainting,
    "super_resolution": SuperResolution,
    "gaussian_blur": GaussianBlur,
    "motion_blur": MotionBlur,
}

NOISES: dict[str, type[Noise]] = {
    "gaussian": GaussianNoise,
    "none": NoNoise,
}


def make_operator(
    name: str, in_shape: Shape, settings: Mapping[str, object], rngs: Sequence[np.random.Generator]
) -> Operator:
    """The operator `name` of OPERATORS for images of in_shape (C, H, W), one generator of `rngs` an image.

    Masks and kernels that are drawn are drawn once for each image, from its own generator. ValueError: an
    unknown name, an unknown, missing or faulty setting.
    """
    if name not in OPERATORS:
        raise ValueError(f"unknown operator {name!r}; there are {', '.join(OPERATORS)}")
    return OPERATORS[name].from_settings(in_shape, settings, rngs)


def make_noise(name: str, sigma: float | None = None) -> Noise:
    """The noise `name` of NOISES, with its standard deviation on the [-1, 1] range.

    ValueError: an unknown name, or a sigma that the noise cannot have.
    """
    if name not in NOISES:
        raise ValueError(f"unknown noise {name!r}; there are {', '.join(NOISES)}")
    return NOISES[name].from_sigma(sigma)
