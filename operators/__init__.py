"""Measurements y = A(x) + n: linear operators with exact adjoints, and noise.

The degradations of Ahn et al., Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance (ECCV
2024), Tables 5 and 7. Images are (B, C, H, W), floating point, range [-1, 1]. To add an operator, write a
subclass of `Operator` in a file of its own, and one line in OPERATORS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from operators.base import Operator, Settings, Shape
from operators.blur import Blur, GaussianBlur, MotionBlur
from operators.inpainting import BoxInpainting, Inpainting, draw_box, random_mask
from operators.kernels import gaussian_kernel, motion_kernel
from operators.noise import Draw, GaussianNoise, Noise, NoNoise
from operators.super_resolution import SuperResolution

__all__ = [
    "NOISES",
    "OPERATORS",
    "Blur",
    "BoxInpainting",
    "Draw",
    "GaussianBlur",
    "GaussianNoise",
    "Inpainting",
    "MotionBlur",
    "NoNoise",
    "Noise",
    "Operator",
    "Settings",
    "Shape",
    "SuperResolution",
    "draw_box",
    "gaussian_kernel",
    "make_noise",
    "make_operator",
    "motion_kernel",
    "random_mask",
]

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
    unknown name, an unknown, missing or faulty setting; `project` alone may be left out (published).
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
