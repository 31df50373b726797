"""Operators and noises by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from operators.base import Operator, Projection, Shape
from operators.blur import GaussianBlur, MotionBlur
from operators.clip import Clip
from operators.compose import Compose
from operators.grayscale import Grayscale
from operators.identity import Identity
from operators.inpainting import BoxInpainting
from operators.jpeg import Jpeg
from operators.noise import GaussianNoise, Noise, NoNoise, PoissonNoise
from operators.phase_retrieval import PhaseRetrieval
from operators.random_inpainting import RandomInpainting
from operators.super_resolution import SuperResolution
from operators.validation import listed, settings, validated


@settings
class PartSettings:
    """An operator of a composition: its `name` among OPERATORS, and its `settings`."""

    name: str
    settings: Mapping[str, Any] = Field(default_factory=dict)


def _several(parts: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    if len(parts) < 2:
        raise ValueError("it must list at least two operators, each with its name and settings")
    return parts


@settings
class ComposeSettings:
    """`operators`: two or more mappings of `PartSettings` in the order in which they act; `project`: see `Operator`."""

    operators: Annotated[tuple[Mapping[str, Any], ...], AfterValidator(_several), BeforeValidator(listed)]
    project: Projection = "published"


class ComposeByName(Compose):
    """The composition that settings name: each operator is built for what the one before it gives."""

    Settings: ClassVar[type] = ComposeSettings

    @classmethod
    def read_settings(cls, values: object, where: str = "") -> ComposeSettings:
        """As in `Operator`; the settings of each part are checked too, and a message says which part's they are."""
        where = where or Compose.__name__
        found: ComposeSettings = super().read_settings(values, where)
        for number, part in enumerate(found.operators):
            place = f"{where}.operators.{number}"
            read = validated(PartSettings, part, place)
            check_settings(read.name, read.settings, f"{place}.settings")
        return found

    @classmethod
    def image_shape(cls, measured: Shape, settings: ComposeSettings) -> Shape:
        """That of each part in turn, from the last one back."""
        for part in reversed([PartSettings(**part) for part in settings.operators]):
            measured = operator_class(part.name).image_shape(measured, check_settings(part.name, part.settings))
        return measured

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: ComposeSettings, rngs: Sequence[np.random.Generator]
    ) -> ComposeByName:
        *first, last = (PartSettings(**part) for part in settings.operators)
        inner = make_operator(first[0].name, in_shape, first[0].settings, rngs)
        for part in first[1:]:
            inner = Compose(make_operator(part.name, inner.out_shape, part.settings, rngs), inner)
        return cls(make_operator(last.name, inner.out_shape, last.settings, rngs), inner, project=settings.project)


# To add an operator, write it in a file of its own and its name here.
OPERATORS: dict[str, type[Operator]] = {
    "box_inpainting": BoxInpainting,
    "super_resolution": SuperResolution,
    "gaussian_blur": GaussianBlur,
    "motion_blur": MotionBlur,
    "identity": Identity,
    "random_inpainting": RandomInpainting,
    "grayscale": Grayscale,
    "clip": Clip,
    "jpeg": Jpeg,
    "phase_retrieval": PhaseRetrieval,
    "compose": ComposeByName,
}

NOISES: dict[str, type[Noise]] = {
    "gaussian": GaussianNoise,
    "none": NoNoise,
    "poisson": PoissonNoise,
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


def make_noise(name: str, sigma: float | None = None, *, peak: float | None = None) -> Noise:
    """The noise `name` of NOISES, with its standard deviation on the [-1, 1] range, or its photons at white.

    ValueError: an unknown name, or a sigma or a peak that the noise cannot have.
    """
    if name not in NOISES:
        raise ValueError(f"unknown noise {name!r}; there are {', '.join(NOISES)}")
    if sigma is not None and peak is not None:
        raise ValueError(f"sigma is {sigma} and peak is {peak}; give one of them")
    return NOISES[name].from_sigma(sigma) if peak is None else NOISES[name].from_peak(peak)


def _operator(name: str, where: str = "") -> type[Operator]:
    if name not in OPERATORS:
        place = f"{where}: " if where else ""
        raise ValueError(f"{place}unknown operator {name!r}; there are {', '.join(OPERATORS)}")
    return OPERATORS[name]
