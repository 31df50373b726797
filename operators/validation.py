"""Validated settings, and the checks that every operator makes of shapes and arrays.

A settings class is a frozen dataclass that pydantic checks. The same class reads a YAML file, a command line
and Python arguments. Every fault is a ValueError of one line: where, the value, and what is allowed.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import numpy as np
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import dataclass_transform

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Shape = tuple[int, int, int]
T = TypeVar("T")

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_DEPTH = 2  # of lists in settings
_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def listed(value: object) -> object:
    """YAML and JSON have lists where settings have tuples."""
    return tuple(value) if isinstance(value, list) else value


def _ascending(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("the lower number must come first")
    return interval


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("it must be an odd number")
    return value


LARGEST_SIGMA = 10.0  # on the [-1, 1] range: nothing of a picture is left in more noise
SMALLEST_PEAK, LARGEST_PEAK = 0.1, 1e6  # photons at white
NonNegative = Annotated[float, Field(ge=0)]
Sigma = Annotated[float, Field(ge=0, le=LARGEST_SIGMA)]
Peak = Annotated[float, Field(ge=SMALLEST_PEAK, le=LARGEST_PEAK)]
Positive = Annotated[float, Field(gt=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]
Interval = Annotated[tuple[Unit, Unit], AfterValidator(_ascending), BeforeValidator(listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
Wholes = Annotated[tuple[int, ...], BeforeValidator(listed)]


@dataclass_transform(frozen_default=True, kw_only_default=False, field_specifiers=(Field,))
def settings(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose values are checked when it is built, `dataclasses.replace` included."""
    built: Any = pydantic_dataclass(cls, frozen=True, config=_CONFIG)
    check: Callable[..., None] = built.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            check(self, *map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})
        except ValidationError as error:
            raise ValueError(one_line(error, known=field_names(built))) from None

    __init__.__signature__ = built.__signature__  # type: ignore[attr-defined]
    built.__init__ = __init__
    return built


def validated(kind: type[T], values: object, where: str = "") -> T:
    """`values`, a mapping, as the settings class `kind`; ValueError of one line that begins with `where`."""
    place = f"{where}: " if where else ""
    if not isinstance(values, Mapping):
        raise ValueError(f"{place}{short(values)} is not a mapping of settings")
    named = {str(key): value for key, value in values.items()}
    try:
        return kind(**named)
    except ValueError as error:
        raise ValueError(f"{place}{error}") from None


def field_names(kind: Any) -> tuple[str, ...]:
    """The names of a settings class's values, in their order."""
    return tuple(field.name for field in fields(kind))


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def field_lines(kind: Any, names: Sequence[str] | None = None) -> list[str]:
    """A line for each value of a settings class, or for those in `names`: its default, what it is, what is allowed."""
    fields = getattr(kind, "__pydantic_fields__", {})
    return [_field_line(name, fields[name]) for name in (fields if names is None else names)]


def _field_line(name: str, field: Any) -> str:
    options = [arg for part in (field.annotation, *get_args(field.annotation)) for arg in _literals(part)]
    allowed = f" ({', '.join(options)})" if options else ""
    return f"{name}={field.default}  {field.description or ''}{allowed}"


def _literals(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def one_line(error: ValidationError, known: Sequence[str] = ()) -> str:
    """One fault that pydantic found, as one line: the key, its value, and what is allowed.

    A key that is not known comes first: it is often one that is missing, misspelt.
    """
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] in _UNKNOWN), faults[0])
    key = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
    if fault["type"] in _UNKNOWN:
        return f"{key[:60]} is an unknown key" + (f"; allowed: {', '.join(known)}" if known else "")
    if fault["type"] in ("missing", "missing_argument"):
        return f"{key} is missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error" and message.startswith(f"{key} "):
        return message
    allowed = message.replace("Input should be", "it must be", 1)
    value = fault.get("input")
    hint = "; in YAML an exponent needs a point, as in 1.0e-4" if _is_exponent(value) else ""
    return f"{key} is {short(value)}; {allowed}{hint}" if key else f"{allowed}{hint}"


def short(value: object) -> str:
    """A value for a message, on one line and not long, however large or deep the value is."""
    shown = " ".join(_REPR.repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def check_choice(where: str, value: object, allowed: Sequence[str]) -> str:
    """`value` if it is one of `allowed`; else a ValueError that begins with `where` and lists them."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{where} is {short(value)}; it must be one of {', '.join(allowed)}")
    return value


def check_different(where: str, values: Sequence[object]) -> None:
    """ValueError, which begins with `where`, for a value that is given twice."""
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise ValueError(f"{where}: {short(twice[0])} is given twice")


def check_number(where: str, value: object, minimum: float = 0.0, maximum: float = math.inf) -> float:
    """`value` as a float; a ValueError that begins with `where` if it is no finite number in the range."""
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= 1e300:  # type: ignore[operator]
        number = float(value)
    if not minimum <= number <= maximum:
        allowed = f"at least {minimum:g}" if maximum == math.inf else f"from {minimum:g} to {maximum:g}"
        raise ValueError(f"{where} is {short(value)}; it must be a finite number, {allowed}")
    return number


def check_whole(where: str, value: object, minimum: int = 0, maximum: float = math.inf) -> int:
    """`value` as an int; a ValueError that begins with `where` if it is no whole number in the range."""
    if not is_whole(value) or not minimum <= value <= maximum:  # type: ignore[operator]
        allowed = f"at least {minimum}" if maximum == math.inf else f"from {minimum} to {maximum:g}"
        raise ValueError(f"{where} is {short(value)}; it must be a whole number, {allowed}")
    return int(value)  # type: ignore[call-overload]


def check_odd(where: str, value: object) -> int:
    """`value` as an int; a ValueError that begins with `where` if it is no positive odd number."""
    if not is_whole(value) or value < 1 or value % 2 == 0:  # type: ignore[operator]
        raise ValueError(f"{where} is {short(value)}; it must be a positive odd number")
    return int(value)  # type: ignore[call-overload]


def is_whole(value: object) -> bool:
    """Whether a value is an integer; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_shape(shape: Sequence[int]) -> Shape:
    """`shape` as (C, H, W) of positive whole numbers; ValueError otherwise."""
    if len(shape) != 3 or not all(is_whole(side) and side > 0 for side in shape):
        raise ValueError(f"shape is {tuple(shape)}; it is (channels, height, width), each at least 1")
    channels, height, width = (int(side) for side in shape)
    return channels, height, width


def as_tensor(array: NDArray[Any] | Tensor, name: str) -> Tensor:
    """A copy of a user's array as a float64 tensor without a graph; ValueError for NaN, infinite or complex entries.

    The copy is an ordinary tensor, also where the array is a tensor of `torch.inference_mode`.
    """
    import torch

    with torch.inference_mode(False):
        values = array.detach() if isinstance(array, torch.Tensor) else np.asarray(array)
        if "complex" in str(values.dtype):
            raise ValueError(f"{name} is complex; it must be real")
        if isinstance(values, torch.Tensor):
            tensor = values.to(torch.float64, copy=True)
        else:  # numpy copies first: torch takes no negative strides, as a flipped kernel has
            tensor = torch.from_numpy(values.astype(np.float64, order="C"))
    if tensor.numel() == 0 or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} of shape {tuple(tensor.shape)} is empty, or holds NaN or infinite entries")
    return tensor


def _plain(value: object, depth: int = _DEPTH) -> object:
    """Numpy's scalars as Python's, which the strict checks ask for; also inside lists and tuples.

    No settings are deeper than `depth`; a YAML file may hold lists of lists without an end.
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple) and depth:
        return type(value)(_plain(item, depth - 1) for item in value)  # type: ignore[call-arg, attr-defined]
    return value


def _is_exponent(value: object) -> bool:
    """YAML 1.1 reads 1e-4 as a text."""
    try:
        return isinstance(value, str) and "e" in value.lower() and math.isfinite(float(value))
    except ValueError:
        return False
