"""Strict YAML: every fault is one line that names the file and the place in it."""

from __future__ import annotations

from collections.abc import Hashable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from operators.validation import one_line, short
from pag_inverse.settings.files import read_text

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_LIMIT = 2**18  # bytes; YAML is read slowly
Model = TypeVar("Model", bound="FileModel")


class FileModel(BaseModel):
    """A mapping of a YAML file: no key but the named ones, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """The safe loader (no tag that names code), which also refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, Hashable) and name in seen:
                problem = f"key {short(name)} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            seen.add(name if isinstance(name, Hashable) else None)
        return super().construct_mapping(node, deep=deep)


def read_yaml(file: Path | Traversable, source: str = "") -> dict[Any, Any]:
    """The mapping that a YAML file holds; a one-line ValueError that begins with the file's name otherwise."""
    source = source or str(file)
    return parse_yaml(read_text(file, _LIMIT) if isinstance(file, Path) else file.read_text(encoding="utf-8"), source)


def parse_yaml(text: str, source: str) -> dict[Any, Any]:
    """The mapping of one YAML document; a one-line ValueError that begins with `source` otherwise."""
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{source}: {line}{' '.join((error.problem or str(error)).split())}") from error
    except Exception as error:  # the constructors of odd tags raise anything
        raise ValueError(f"{source}: not YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{source}: the content is {short(values)}, not a mapping of keys to values")
    return values


def parse_value(text: str) -> Any:
    """A number, true or false, a list, null, or the text itself."""
    try:
        value = parse_yaml(f"value: {text}", text)["value"]
        return float(value) if isinstance(value, str) else value  # YAML reads 1e-4 as a text
    except (ValueError, KeyError):
        return text


def read_model(kind: type[Model], values: object, source: str) -> Model:
    """A file's mapping as a model; a one-line ValueError that begins with `source` otherwise."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: {one_line(error)}") from None


def open_settings(
    kind: str, name: str | Path, known: tuple[str, ...], folder: str | None = None
) -> tuple[str, str, dict[Any, Any]]:
    """The plain name, the source and the content of a shipped file, or of a user's own.

    `kind` is task, prior or suite, whose files lie in `folder`, by default the plural of its name. ValueError for a
    name that is neither in `known` nor a .yaml file.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path.stem, str(path), read_yaml(path)
    if name not in known:
        there = ", ".join(known)
        raise ValueError(f"unknown {kind} {str(name)!r}; there are {there}, or the path of a .yaml file")
    source = f"{name}.yaml"
    return str(name), source, read_yaml(shipped(folder or f"{kind}s").joinpath(source), source)


def shipped(folder: str) -> Traversable:
    """A folder of the settings that come with the package."""
    try:
        return resources.files("pag_inverse.configs").joinpath(folder)
    except ModuleNotFoundError as error:
        remedy = "pag_inverse is not installed: run `pip install -e .` in its repository"
        raise ModuleNotFoundError(remedy) from error


def shipped_names(folder: str) -> tuple[str, ...]:
    """The names of the settings in it, sorted."""
    return tuple(sorted(file.name[:-5] for file in shipped(folder).iterdir() if file.name.endswith(".yaml")))
