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

VERSIONED = ("pag-inverse", "torch", "diffusers", "numpy", "scipy", "scikit-image")


def sha256(content: bytes | Iterable[bytes]) -> str:
    """The SHA-256 of some bytes, or of a sequence of parts, in hexadecimal."""
    digest = hashlib.sha256()
    for part in [content] if isinstance(content, bytes) else content:
        digest.update(part)
    return digest.hexdigest()


def file_sha256(path: Path) -> str | None:
    """The SHA-256 of a file; None where there is none."""
    try:
        return sha256(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


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
    return [f"{key} {old.get(key)!r} (now {new.get(key)!r})" for key in keys if old.get(key) != new.get(key)]


def check_writable(folder: Path) -> None:
    """ValueError where the folder, or the nearest one above it that exists, is a file or cannot be written."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{there} is a file; give another --output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there} cannot be written; give another --output")
