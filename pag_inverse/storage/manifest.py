"""The manifest of a run: what the run is, and once finalised a summary of what it made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pag_inverse.data.files import MANIFEST, RUN_FORMAT, write_whole
from pag_inverse.settings.files import parse_json, read_bytes
from pag_inverse.storage.entries import Entry, Line
from pag_inverse.storage.files import versions

_LARGEST = 2**31  # bytes


class Manifest(Line):
    """What a manifest must hold."""

    kind: str
    item: str
    root: Literal[".", ".."]  # the folder itself, or that of an evaluation's runs
    settings: dict[str, Any]


def read_manifest(folder: Path) -> Entry | None:
    """The content of a run's manifest; None where there is none, a damaged one, or somebody else's file."""
    try:
        found = parse_json(read_bytes(folder / MANIFEST, _LARGEST))
        if not isinstance(found, dict) or found.get("format") != RUN_FORMAT:
            return None
        Manifest.model_validate(found)
    except (ValueError, ValidationError):
        return None
    return found


def write_manifest(
    folder: Path, *, kind: str, item: str, root: Path, settings: Mapping[str, Any], entries: Mapping[str, Entry]
) -> None:
    """Write it whole: `settings` and `entries` hold JSON's types only; of an entry's files, the paths are kept."""
    summary = {key: {**entry, "files": _paths(entry)} for key, entry in entries.items()}
    content = {
        "format": RUN_FORMAT,
        "kind": kind,
        "item": item,
        "root": os.path.relpath(root, folder),
        "settings": settings,
        "versions": versions(),
        f"{item}s": summary,
    }
    write_whole(folder / MANIFEST, json.dumps(content, indent=1, allow_nan=False).encode())


def _paths(entry: Mapping[str, Any]) -> dict[str, str]:
    return {kind: file["path"] for kind, file in entry.get("files", {}).items()}
