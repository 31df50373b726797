"""The folder of a run: pictures an image, and one manifest that is whole at any moment."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pag_inverse.data.images import write_png, write_whole
from pag_inverse.storage.saved import differences, npy

VERSIONED = ("pag-inverse", "torch", "diffusers", "numpy", "scipy", "scikit-image")


class RunFolder:
    """`manifest.json` with the settings and an entry for each finished image, beside the pictures themselves."""

    def __init__(self, folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
        """Open or continue a run; ValueError if the folder holds one with other settings or something else."""
        self.folder, self.settings = folder, json.loads(json.dumps(settings))
        self.images: dict[str, Any] = {}
        found = self._found()
        if found is not None and not overwrite:
            self._compare(found)
            self.images = {k: v for k, v in found["images"].items() if self._whole(v)}

    def start(self) -> None:
        """Make the folder and write the manifest; nothing was written before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_manifest()

    def finish(self, name: str, pictures: dict[str, Any], arrays: dict[str, Any], entry: dict[str, Any]) -> None:
        """Write an image's files, then its entry: an interruption between them loses the image, not the run."""
        files = {}
        for kind, picture in pictures.items():
            files[kind] = f"{name}_{kind}.png"
            write_png(self.folder / files[kind], picture)
        for kind, array in arrays.items():
            files[f"{kind}_array"] = f"{name}_{kind}.npy"
            write_array(self.folder / files[f"{kind}_array"], np.asarray(array))
        self.images[name] = {**entry, "files": files}
        self._write_manifest()

    def _found(self) -> dict[str, Any] | None:
        manifest = self.folder / "manifest.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; give another --output")
        if not manifest.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise ValueError(f"{self.folder} is not empty and holds no run; give another --output")
            return None
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            return content if {"settings", "images"} <= set(content) else None
        except (json.JSONDecodeError, UnicodeDecodeError):
            return None

    def _compare(self, found: dict[str, Any]) -> None:
        other = differences(found["settings"], self.settings)
        if other:
            raise ValueError(
                f"{self.folder} holds a run with other settings: {'; '.join(other)}; "
                "give another --output, or --overwrite"
            )

    def _whole(self, entry: dict[str, Any]) -> bool:
        return all((self.folder / file).is_file() for file in entry["files"].values())

    def _write_manifest(self) -> None:
        content = {"settings": self.settings, "versions": versions(), "images": self.images}
        write_whole(self.folder / "manifest.json", json.dumps(content, indent=1).encode())


def check_writable(folder: Path) -> None:
    """OSError where the folder, or the nearest one above it that exists, cannot be written."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "cannot be written; give another --output", str(there))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy whole or not at all."""
    write_whole(path, npy(array))


def versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONED}


def sha256(content: bytes | Iterable[bytes]) -> str:
    """The hash of some bytes, or of a sequence of parts."""
    digest = hashlib.sha256()
    for part in [content] if isinstance(content, bytes) else content:
        digest.update(part)
    return digest.hexdigest()
