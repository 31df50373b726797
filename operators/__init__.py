"""Measurements y = A(x) + n: linear operators with exact adjoints, and noise.

The degradations of Ahn et al., Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance (ECCV
2024), Tables 5 and 7. Images are (B, C, H, W), floating point, range [-1, 1]. To add an operator, write a
subclass of `Operator` in a file of its own, and one line in `operators.registry.OPERATORS`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operators.base import Operator, Shape
    from operators.blur import Blur, GaussianBlur, GaussianBlurSettings, MotionBlur, MotionBlurSettings
    from operators.compose import Compose
    from operators.identity import Identity, IdentitySettings
    from operators.inpainting import BoxInpainting, BoxInpaintingSettings, Inpainting, draw_box, random_mask
    from operators.kernels import gaussian_kernel, motion_kernel
    from operators.noise import Draw, GaussianNoise, Noise, NoNoise
    from operators.registry import (
        NOISES,
        OPERATORS,
        ComposeSettings,
        check_settings,
        make_noise,
        make_operator,
        operator_class,
    )
    from operators.super_resolution import SuperResolution, SuperResolutionSettings

_HOMES = {
    "NOISES": "registry",
    "OPERATORS": "registry",
    "Blur": "blur",
    "BoxInpainting": "inpainting",
    "BoxInpaintingSettings": "inpainting",
    "Compose": "compose",
    "ComposeSettings": "registry",
    "Draw": "noise",
    "GaussianBlur": "blur",
    "GaussianBlurSettings": "blur",
    "GaussianNoise": "noise",
    "Identity": "identity",
    "IdentitySettings": "identity",
    "Inpainting": "inpainting",
    "MotionBlur": "blur",
    "MotionBlurSettings": "blur",
    "NoNoise": "noise",
    "Noise": "noise",
    "Operator": "base",
    "Shape": "base",
    "SuperResolution": "super_resolution",
    "SuperResolutionSettings": "super_resolution",
    "check_settings": "registry",
    "draw_box": "inpainting",
    "gaussian_kernel": "kernels",
    "make_noise": "registry",
    "make_operator": "registry",
    "motion_kernel": "kernels",
    "operator_class": "registry",
    "random_mask": "inpainting",
}
__all__ = [
    "NOISES",
    "OPERATORS",
    "Blur",
    "BoxInpainting",
    "BoxInpaintingSettings",
    "Compose",
    "ComposeSettings",
    "Draw",
    "GaussianBlur",
    "GaussianBlurSettings",
    "GaussianNoise",
    "Identity",
    "IdentitySettings",
    "Inpainting",
    "MotionBlur",
    "MotionBlurSettings",
    "NoNoise",
    "Noise",
    "Operator",
    "Shape",
    "SuperResolution",
    "SuperResolutionSettings",
    "check_settings",
    "draw_box",
    "gaussian_kernel",
    "make_noise",
    "make_operator",
    "motion_kernel",
    "operator_class",
    "random_mask",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: checking settings does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'operators' has no attribute {name!r}")
    return getattr(import_module(f"operators.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
