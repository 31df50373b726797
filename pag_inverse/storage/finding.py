"""The runs that a folder holds."""

from __future__ import annotations

from pathlib import Path

from pag_inverse.data.files import MANIFEST
from pag_inverse.storage.entries import ItemEntry
from pag_inverse.storage.manifest import read_manifest
from pag_inverse.storage.run_store import RunStore


def find_runs(folder: Path, kind: str, entry: type[ItemEntry] = ItemEntry) -> list[RunStore]:
    """The run that a folder is, or the runs in it; ValueError where there is none of this kind, or a damaged one.

    Folders with a manifest of something else are passed over.
    """
    if (folder / MANIFEST).is_file():
        places = [folder]
    else:
        places = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}")) if _is_run(path.parent)]
    found = [store for store in (RunStore.of(place, entry) for place in places) if store.kind == kind]
    if not found:
        raise ValueError(f"{folder}: no {kind} run in it")
    return found


def _is_run(folder: Path) -> bool:
    return read_manifest(folder) is not None or any(folder.glob("rank-[0-9][0-9][0-9].jsonl"))
