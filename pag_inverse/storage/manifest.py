"""The manifest of a run: what the run is, and once finalised a summary of what it made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pag_inverse.data.files import MANIFEST, RUN_FORMAT, write_whole
from pag_inverse.storage.files import versions

Entry = dict[str, Any]


def read_manifest(folder: Path) -> Entry | None:
    """The content of a folder's manifest; None where there is none, or a damaged one."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


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
