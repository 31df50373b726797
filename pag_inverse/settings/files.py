"""Reading files that may be anything: regular files only, no larger than their kind can be, and strict JSON."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

TEXT_LIMIT = 2**24  # bytes of a file of settings


def check_file(path: str | os.PathLike[str], limit: int | None = None) -> int:
    """The size in bytes of a regular file, also behind a link; it is not opened.

    ValueError: nothing is there, a folder, a pipe, a device, a path that cannot be, more than `limit` bytes.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {_reason(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise ValueError(f"{path}: it is {kind}, not a file")
    if limit is not None and found.st_size > limit:
        raise ValueError(f"{path}: {found.st_size / 1e6:.0f} MB; at most {limit / 1e6:.0f} MB are read")
    return found.st_size


def read_bytes(path: str | os.PathLike[str], limit: int = TEXT_LIMIT) -> bytes:
    """The content of a regular file of at most `limit` bytes; ValueError otherwise."""
    check_file(path, limit)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {_reason(error)}") from error


def read_text(path: str | os.PathLike[str], limit: int = TEXT_LIMIT) -> str:
    """The text of a regular file in UTF-8; ValueError otherwise."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8") from error


def parse_json(text: str | bytes, *, infinite: bool = False) -> Any:
    """One JSON value; ValueError for anything else: a key given twice, nested too deeply, a number too large, NaN.

    `infinite` takes NaN and Infinity, which diffusers writes into settings of schedulers.
    """
    checks: dict[str, Any] = {} if infinite else {"parse_constant": _refuse, "parse_float": _finite}
    try:
        return json.loads(text, object_pairs_hook=_unique, **checks)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: str | os.PathLike[str], *, infinite: bool = False) -> dict[str, Any]:
    """The JSON object in a file; a ValueError that names the file otherwise. `infinite` as in `parse_json`."""
    text = read_text(path)
    try:
        content = parse_json(text, infinite=infinite)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no table of settings")
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return getattr(error, "strerror", None) or " ".join(str(error).split())
