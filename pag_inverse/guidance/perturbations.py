"""The perturbations by name, and how one is spelled: NAME, or NAME:OPTION=VALUE,OPTION=VALUE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from operators.validation import field_lines, short, validated
from pag_inverse.guidance.blocks import Skip, TokenShuffle
from pag_inverse.guidance.combination import APG, Combination, Plain
from pag_inverse.guidance.maps import AdditiveNoise, BlurredMap, OffDiagonalMask, RandomMask
from pag_inverse.guidance.perturbation import Identity, Perturbation
from pag_inverse.guidance.sag import AdversarialBlur
from pag_inverse.guidance.seg import SmoothedEnergy
from pag_inverse.settings.reader import parse_value

Kind = TypeVar("Kind")

PERTURBATIONS: dict[str, type[Perturbation]] = {
    "identity": Identity,
    "random_mask": RandomMask,
    "off_diagonal_mask": OffDiagonalMask,
    "additive_noise": AdditiveNoise,
    "blurred_map": BlurredMap,
    "seg": SmoothedEnergy,
    "token_shuffle": TokenShuffle,
    "skip": Skip,
    "sag": AdversarialBlur,
}
COMBINATIONS: dict[str, type[Combination]] = {"plain": Plain, "apg": APG}


def make_perturbation(given: str | Perturbation) -> Perturbation:
    """A perturbation from its spelling; ValueError for an unknown name or option, or a value out of range.

    >>> from pag_inverse.guidance import make_perturbation
    >>> make_perturbation("seg:sigma=2.0")
    SmoothedEnergy(sigma=2.0)
    """
    return given if isinstance(given, Perturbation) else _read("perturbation", given, PERTURBATIONS)


def make_combination(given: str | Combination) -> Combination:
    """A combination rule from its spelling; ValueError as of `make_perturbation`."""
    return given if isinstance(given, Combination) else _read("combination", given, COMBINATIONS)


def spelling(given: Perturbation | Combination) -> str:
    """The name with every option, as `make_perturbation` or `make_combination` reads it."""
    known: Mapping[str, type] = {**PERTURBATIONS, **COMBINATIONS}
    name = next((name for name, kind in known.items() if kind is type(given)), type(given).__name__)
    values = [f"{key}={'null' if value is None else value}" for key, value in given.options().items()]
    return ":".join([name, ",".join(values)]) if values else name


def perturbation_lines() -> list[str]:
    """A line for each perturbation and each of its options."""
    found = []
    for name, kind in PERTURBATIONS.items():
        found += [name, *(f"  {line}" for line in field_lines(kind))]
    return found


def _read(what: str, text: object, known: Mapping[str, type[Kind]]) -> Kind:
    if not isinstance(text, str):
        raise ValueError(f"{what} is {short(text)}; it must be one of {', '.join(known)}")
    name, _, options = text.partition(":")
    if name not in known:
        raise ValueError(f"unknown {what} {short(name)}; there are {', '.join(known)}")
    values: dict[str, object] = {}
    for part in options.split(",") if options else []:
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise ValueError(f"{what} {short(text)}; its options read {name}:KEY=VALUE,KEY=VALUE")
        if key in values:
            raise ValueError(f"{what} {short(text)}: {key} is given twice")
        values[key] = parse_value(value)
    return validated(known[name], values, f"{what} {name}")
