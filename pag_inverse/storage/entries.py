"""The entries of a run: the shape that a line must have, and which of several lines of an item counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from pag_inverse.data.files import write_whole
from pag_inverse.storage.json_lines import read_lines

Entry = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)
Number = float | None  # null in JSON is what was not finite
Text = InstanceOf[str]  # also a file's name that is no Unicode


def _inside(path: str) -> str:
    """A run's files lie below its root."""
    if not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("it must lie below the run's root")
    return path


class Line(BaseModel):
    """A line of JSON; keys beyond the named ones are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


class FileEntry(Line):
    """A file of an item: its path below the run's root, and the SHA-256 of its content."""

    path: Annotated[Text, AfterValidator(_inside)]
    sha256: str


class ItemEntry(Line):
    """What every line of a record has; each kind of run adds what its finished items have.

    `error` says that the item failed, `retry` that it is tried again; `opening` counts the times that the run was
    opened: a clock may be wrong.
    """

    files: dict[str, FileEntry] = Field(default_factory=dict)
    error: Text | None = None
    retry: bool = False
    opening: Annotated[int, Field(ge=0)] = 0
    input_sha256: str | None = None


@dataclass(frozen=True)
class Survey:
    """Where the items of a run stand; every one that was asked for is finished, failed or pending.

    finished: done, with all files as they were written. failed: the error of each item that would fail again.
    pending: to be made, in the order asked, those with an error that may be gone among them. damaged: a sentence for
    each thing that was found damaged.
    """

    finished: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def read_entries(path: Path, item: str, kind: type[ItemEntry]) -> tuple[list[Entry], int]:
    """The entries of a record, and how many of its lines were damaged or have another shape."""
    lines, damaged = read_lines(path)
    found = [line for line in lines if _is_entry(line, item, kind)]
    return found, damaged + len(lines) - len(found)


def drop_damaged(path: Path, item: str) -> int:
    """Remove the lines of a record that are torn, as a kill leaves them, or no entries; their number."""
    entries, damaged = read_entries(path, item, ItemEntry)
    if damaged:
        write_whole(path, "".join(f"{json.dumps(entry)}\n" for entry in entries).encode())
    return damaged


def valid_lines(lines: Iterable[Entry], kind: type[Model]) -> list[Entry]:
    """The lines that have the shape of `kind`."""
    return [line for line in lines if _is(line, kind)]


def latest(records: Iterable[Iterable[Entry]], item: str) -> dict[str, Entry]:
    """The line of each item that counts, sorted by key: of the last opening, there a finished one before a failed."""
    found: dict[str, Entry] = {}
    for entry in (entry for record in records for entry in record):
        key = str(entry[item])
        if key not in found or _precedence(entry) >= _precedence(found[key]):
            found[key] = entry
    return dict(sorted(found.items()))


def is_of_another_input(entry: Mapping[str, Any], digest: str | None) -> bool:
    """Whether an entry was made of another input than the one with this SHA-256; False where one is not known."""
    recorded = entry.get("input_sha256")
    return None not in (recorded, digest) and recorded != digest


def _is_entry(line: Entry, item: str, kind: type[ItemEntry]) -> bool:
    key = line.get(item)
    return isinstance(key, str) and bool(key) and _is(line, ItemEntry if "error" in line else kind)


def _is(line: Entry, kind: type[BaseModel]) -> bool:
    try:
        kind.model_validate(line)
    except ValidationError:
        return False
    return True


def _precedence(entry: Mapping[str, Any]) -> tuple[int, bool]:
    return entry.get("opening", 0), "error" not in entry
