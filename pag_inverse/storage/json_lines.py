"""Files of JSON lines that several kills and restarts leave readable."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pag_inverse.data.files import hold
from pag_inverse.settings.files import check_file, parse_json


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one entry and bring it to the disk; a part that a kill left behind is closed off first.

    Where the disk is full the file is left as it was and an OSError names it.
    """
    line = json.dumps(strict(entry), allow_nan=False) + "\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        hold(descriptor, wait=True)  # a reader would see a part of the line
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        try:
            write_all(descriptor, ("\n" if torn else "").encode() + line.encode())
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte: on a disk that fills, one call may write a part and say nothing."""
    while content:
        content = content[os.write(descriptor, content) :]


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole entries of a file, none where there is no file, and how many lines were damaged.

    ValueError: a folder, a pipe or a device in the file's place.
    """
    if not path.exists():
        return [], 0
    entries, damaged = [], 0
    check_file(path)
    with path.open("rb") as file:
        hold(file, exclusive=False, wait=True)
        content = file.read()
    for line in content.splitlines():
        try:
            entry = parse_json(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            entries.append(entry)
        elif line.strip():
            damaged += 1
    return entries, damaged


def strict(value: Any) -> Any:
    """A value as JSON has it: mappings with text keys, lists, and null for NaN and the infinities."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
