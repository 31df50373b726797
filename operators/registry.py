"""Operators and noises by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from operators.base import Operator, Shape
from operators.blur import GaussianBlur, MotionBlur
from operators.inpainting import BoxInpainting
from operators.noise import GaussianNoise, Noise, NoNoise
from operators.super_resolution import SuperResolution

# To add an operator, write it in a file of its own and its name here.
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


def operator_class(name: str) -> type[Operator]:
    """The operator `name` of OPERATORS; ValueError for an unknown one."""
    if name not in OPERATORS:
        raise ValueError(f"unknown operator {name!r}; there are {', '.join(OPERATORS)}")
    return OPERATORS[name]


def make_operator(name: str, in_shape: Shape, settings: object, rngs: Sequence[np.random.Generator]) -> Operator:
    """The operator `name` of OPERATORS for images of in_shape (C, H, W), one generator of `rngs` an image.

    `settings` is a mapping, or an object of the operator's class of settings. Masks and kernels that are drawn
    are drawn once for each image, from its own generator. ValueError: an unknown name, an unknown, missing or
    faulty setting.
    """
    return _operator(name).from_settings(in_shape, settings, rngs)


def check_settings(name: str, values: object, where: str = "") -> Any:
    """The settings of the operator `name`, a mapping as YAML has it, as an object of its class of settings.

    Nothing is built. ValueError of one line that begins with `where`: an unknown name, an unknown, missing or
    faulty setting.
    """
    return _operator(name, where).read_settings(values, where)


def make_noise(name: str, sigma: float | None = None) -> Noise:
    """The noise `name` of NOISES, with its standard deviation on the [-1, 1] range.

    ValueError: an unknown name, or a sigma that the noise cannot have.
    """
    if name not in NOISES:
        raise ValueError(f"unknown noise {name!r}; there are {', '.join(NOISES)}")
    return NOISES[name].from_sigma(sigma)


def _operator(name: str, where: str = "") -> type[Operator]:
    if name not in OPERATORS:
        place = f"{where}: " if where else ""
        raise ValueError(f"{place}unknown operator {name!r}; there are {', '.join(OPERATORS)}")
    return OPERATORS[name]
