"""Small parts of a run store: hashes, arrays as bytes, versions, differences."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from operators.validation import short

VERSIONED = ("pag-inverse", "torch", "diffusers", "numpy", "scipy", "scikit-image")


def sha256(content: bytes | Iterable[bytes]) -> str:
    """The SHA-256 of some bytes, or of a sequence of parts, in hexadecimal."""
    digest = hashlib.sha256()
    for part in [content] if isinstance(content, bytes) else content:
        digest.update(part)
    return digest.hexdigest()


def file_sha256(path: Path) -> str | None:
    """The SHA-256 of a regular file; None where there is none."""
    try:
        there = path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # a damaged record may hold such a name
            raise
        there = False
    if not there:
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
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [f"{key[:60]}: {text}" for text in differences(a, b)]
        elif a != b:
            found.append(f"{key[:60]} {short(a)} (now {short(b)})")
    return found


def wrong_file(entry: Mapping[str, Any], root: Path) -> str | None:
    """What is wrong with the files of an item, below `root`; None where they are whole."""
    for file in entry.get("files", {}).values():
        digest = file_sha256(root / file["path"])
        if digest != file["sha256"]:
            return f"{file['path'][:200]} is {'missing' if digest is None else 'damaged'}"
    return None


def remove_files(entry: Mapping[str, Any], root: Path, folder: Path) -> None:
    """Remove those files of an item, below `root`, that lie in `folder` and are as they were written."""
    for file in entry.get("files", {}).values():
        path = root / file["path"]
        if folder in path.parents and file_sha256(path) == file["sha256"]:
            path.unlink()
