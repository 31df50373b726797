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
    from operators.clip import Clip, ClipSettings
    from operators.compose import Compose
    from operators.crop import Crop
    from operators.diagonal import Diagonal
    from operators.grayscale import Grayscale, GrayscaleSettings
    from operators.identity import Identity, IdentitySettings
    from operators.inpainting import BoxInpainting, BoxInpaintingSettings, Inpainting, draw_box, random_mask
    from operators.jpeg import Jpeg, JpegSettings
    from operators.kernels import gaussian_kernel, motion_kernel
    from operators.linear import LinearOperator
    from operators.noise import Draw, GaussianNoise, Noise, NoNoise, PoissonNoise
    from operators.phase_retrieval import PhaseRetrieval, PhaseRetrievalSettings
    from operators.random_inpainting import RandomInpainting, RandomInpaintingSettings
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
    "Clip": "clip",
    "ClipSettings": "clip",
    "Compose": "compose",
    "ComposeSettings": "registry",
    "Crop": "crop",
    "Diagonal": "diagonal",
    "Draw": "noise",
    "GaussianBlur": "blur",
    "GaussianBlurSettings": "blur",
    "GaussianNoise": "noise",
    "Grayscale": "grayscale",
    "GrayscaleSettings": "grayscale",
    "Identity": "identity",
    "IdentitySettings": "identity",
    "Inpainting": "inpainting",
    "Jpeg": "jpeg",
    "JpegSettings": "jpeg",
    "LinearOperator": "linear",
    "MotionBlur": "blur",
    "MotionBlurSettings": "blur",
    "NoNoise": "noise",
    "Noise": "noise",
    "Operator": "base",
    "PhaseRetrieval": "phase_retrieval",
    "PhaseRetrievalSettings": "phase_retrieval",
    "PoissonNoise": "noise",
    "RandomInpainting": "random_inpainting",
    "RandomInpaintingSettings": "random_inpainting",
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
    "Clip",
    "ClipSettings",
    "Compose",
    "ComposeSettings",
    "Crop",
    "Diagonal",
    "Draw",
    "GaussianBlur",
    "GaussianBlurSettings",
    "GaussianNoise",
    "Grayscale",
    "GrayscaleSettings",
    "Identity",
    "IdentitySettings",
    "Inpainting",
    "Jpeg",
    "JpegSettings",
    "LinearOperator",
    "MotionBlur",
    "MotionBlurSettings",
    "NoNoise",
    "Noise",
    "Operator",
    "PhaseRetrieval",
    "PhaseRetrievalSettings",
    "PoissonNoise",
    "RandomInpainting",
    "RandomInpaintingSettings",
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
