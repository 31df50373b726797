"""A strict reader of YAML settings: every fault is one line that names the file and the key."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import yaml


class _Loader(yaml.SafeLoader):
    """The safe loader (no tag that names code), which also refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for index, key in enumerate(keys) if key in keys[:index]]
        if repeated:
            problem = f"key {repeated[0]!r} is given twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep=deep)


def check_number(where: str, value: object, *, minimum: float = 0.0, maximum: float = math.inf) -> float:
    """Return `value` as a float; a ValueError beginning with `where` if it is no finite number in range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = "; in YAML an exponent needs a point, as in 1.0e-4" if _looks_like_exponent(value) else ""
        raise ValueError(f"{where} is {value!r}, not a number{hint}")
    finite = abs(value) <= 1e300  # false for NaN, infinities and integers beyond any float
    if not finite or not minimum <= value <= maximum:
        allowed = f"at least {minimum:g}" if maximum == math.inf else f"between {minimum:g} and {maximum:g}"
        raise ValueError(f"{where} is {_short(value)}; it must be a finite number, {allowed}")
    return float(value)


def check_whole(where: str, value: object, *, minimum: int = 0, maximum: float = math.inf) -> int:
    """Return `value` as an int; a ValueError beginning with `where` if it is no whole number in range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where} is {_short(value)}, not a whole number")
    check_number(where, value, minimum=minimum, maximum=maximum)
    return value


def check_choice(where: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of `allowed`; else a ValueError beginning with `where` that lists them."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{where} is {_short(value)}; it must be one of {', '.join(allowed)}")
    return value


def check_interval(where: str, interval: Sequence[object]) -> tuple[float, float]:
    """Return (low, high) with 0 <= low <= high <= 1; else a ValueError beginning with `where`."""
    if len(interval) != 2:
        raise ValueError(f"{where} is {_short(interval)}; it must be two numbers, the lower one first")
    low, high = (check_number(where, value, maximum=1.0) for value in interval)
    if low > high:
        raise ValueError(f"{where} is {low:g} to {high:g}; the lower one comes first")
    return low, high


class Section:
    """One mapping of a YAML file, which knows its file and its place in it; all errors are ValueErrors."""

    def __init__(self, source: str, values: object, path: tuple[object, ...] = ()) -> None:
        self.source, self.path = source, path
        if not isinstance(values, Mapping):
            place = f"{source}: {_dotted(path)}" if path else f"{source}: the content"
            raise ValueError(f"{place} is {_short(values)}, not a mapping of keys to values")
        self.values: Mapping[object, object] = values

    def expect(self, required: Sequence[object], optional: Sequence[object] = ()) -> None:
        """Check that every required key is there and that no other is but the optional ones."""
        known = [*required, *optional]
        missing = [key for key in required if key not in self.values]
        unknown = [key for key in self.values if key not in known]
        if unknown:
            raise ValueError(f"{self.where(unknown[0])} is an unknown key; allowed: {_listed(known)}")
        if missing:
            raise ValueError(f"{self.where(missing[0])} is missing")

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def where(self, key: object) -> str:
        """Name a key's place: `file: outer.inner.key`."""
        return f"{self.source}: {_dotted((*self.path, key))}"

    def null(self, key: object) -> bool:
        """Whether the key is absent or null."""
        return self.values.get(key) is None

    def section(self, key: object) -> Section:
        return Section(self.source, self.values[key], (*self.path, key))

    def sections(self) -> dict[str, Section]:
        """Every key, a plain name, with the mapping below it."""
        return {self._name(key): self.section(key) for key in self.values}

    def number(self, key: object, *, minimum: float = 0.0, maximum: float = math.inf) -> float:
        return check_number(self.where(key), self.values[key], minimum=minimum, maximum=maximum)

    def whole(self, key: object, *, minimum: int = 0, maximum: float = math.inf) -> int:
        return check_whole(self.where(key), self.values[key], minimum=minimum, maximum=maximum)

    def choice(self, key: object, allowed: Sequence[str]) -> str:
        return check_choice(self.where(key), self.values[key], allowed)

    def flag(self, key: object) -> bool:
        value = self.values[key]
        if not isinstance(value, bool):
            raise ValueError(f"{self.where(key)} is {_short(value)}; it must be true or false")
        return value

    def text(self, key: object) -> str:
        value = self.values[key]
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{self.where(key)} is {_short(value)}, not a text")
        return value

    def texts(self, key: object) -> tuple[str, ...]:
        """A list of one or more different texts."""
        value = self.values[key]
        if not isinstance(value, list) or not value or not all(isinstance(i, str) and i for i in value):
            raise ValueError(f"{self.where(key)} is {_short(value)}, not a list of names")
        if len(set(value)) < len(value):
            raise ValueError(f"{self.where(key)} is {_short(value)}, which names one twice")
        return tuple(value)

    def wholes(self, key: object, count: int) -> tuple[int, ...]:
        """A list of exactly `count` whole numbers of at least 0."""
        value = self.values[key]
        if not isinstance(value, list) or len(value) != count:
            raise ValueError(f"{self.where(key)} is {_short(value)}, not a list of {count} whole numbers")
        return tuple(check_whole(self.where(key), item) for item in value)

    def interval(self, key: object) -> tuple[float, float]:
        """A list of two numbers between 0 and 1, the lower one first."""
        value = self.values[key]
        if not isinstance(value, list):
            raise ValueError(f"{self.where(key)} is {_short(value)}, not a list of two numbers")
        return check_interval(self.where(key), value)

    def _name(self, key: object) -> str:
        if not isinstance(key, str):
            raise ValueError(f"{self.where(key)}: the key is {key!r}, not a name")
        return key


def parse_yaml(text: str, source: str) -> Section:
    """Parse one YAML document that is a mapping; a fault is a one-line ValueError beginning with `source`."""
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{source}: {line}{_one_line(error.problem or str(error))}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{source}: not YAML: {_one_line(str(error))}") from error
    return Section(source, values)


def _dotted(path: Sequence[object]) -> str:
    return ".".join(str(part) for part in path)


def _listed(keys: Sequence[object]) -> str:
    return ", ".join(str(key) for key in keys)


def _looks_like_exponent(value: object) -> bool:
    """YAML 1.1 reads 1e-4 as a text."""
    try:
        return isinstance(value, str) and "e" in value.lower() and math.isfinite(float(value))
    except ValueError:
        return False


def _short(value: object) -> str:
    shown = _one_line(repr(value))
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
