"""Small parts of a run store: hashes, arrays as bytes, versions, and checks of the folder that is to be written."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from operators.validation import short

_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes
VERSIONED = ("pag-inverse", "torch", "diffusers", "numpy", "scipy", "scikit-image")


def sha256(content: bytes | Iterable[bytes]) -> str:
    """The SHA-256 of some bytes, or of a sequence of parts, in hexadecimal."""
    digest = hashlib.sha256()
    for part in [content] if isinstance(content, bytes) else content:
        digest.update(part)
    return digest.hexdigest()


def file_sha256(path: Path) -> str | None:
    """The SHA-256 of a regular file; None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sha256(iter(lambda: file.read(2**22), b""))


def npy(array: Any) -> bytes:
    """An array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    return {name: version(name) for name in VERSIONED}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What two sets of settings differ in, one text each."""
    keys = sorted(set(old) | set(new))
    values = [(key, old.get(key), new.get(key)) for key in keys]
    return [f"{key[:60]} {short(a)} (now {short(b)})" for key, a, b in values if a != b]


def remove_files(entry: Mapping[str, Any], root: Path, folder: Path) -> None:
    """Remove those files of an item, below `root`, that lie in `folder` and are as they were written."""
    for file in entry.get("files", {}).values():
        path = root / file["path"]
        if folder in path.parents and file_sha256(path) == file["sha256"]:
            path.unlink()


def check_writable(folder: Path) -> None:
    """ValueError where the folder, or the nearest one above it that exists, is no folder or cannot be written."""
    there = folder.absolute()
    check_names([str(there)])
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{there} is {'a file' if there.is_file() else 'no folder'}; give another --output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there} cannot be written; give another --output")


def check_apart(output: Path, inputs: Iterable[Path]) -> None:
    """ValueError where an input is the output folder or lies in it: results would become input."""
    there = _resolved(output)
    for path in inputs:
        if there in (_resolved(path), *_resolved(path).parents):
            raise ValueError(f"--output {output} is or holds the input {path}; give another --output")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} is a link that leads nowhere") from error


def check_names(paths: Iterable[str]) -> None:
    """ValueError for a path that is too long for a file system: a part of 255 bytes, or 4095 in all."""
    for path in paths:
        longest = max(os.fsencode(path).split(b"/"), key=len)
        if len(longest) > _LONGEST_NAME or len(os.fsencode(path)) > _LONGEST_PATH:
            shown = longest[:40].decode(errors="replace")
            raise ValueError(f"{shown}...: a name of {len(longest)} bytes is too long; {_LONGEST_NAME} are allowed")
