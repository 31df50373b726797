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


def check_root(folder: Path) -> None:
    """ValueError where a folder that shall hold runs and their report has files in it, and no run that has a report.

    Such runs have the folder as their root.
    """
    there = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if there and not any(path.is_dir() and (_is_below_root(path) or _is_started(path)) for path in there):
        raise ValueError(f"{folder} is not empty and holds no runs; give another --output")


def _is_below_root(folder: Path) -> bool:
    found = read_manifest(folder)
    return found["root"] == ".." if found else _is_run(folder)


def _is_started(folder: Path) -> bool:
    """Whether a run was killed before its manifest was there."""
    return any(folder.glob(".rank-*.lock")) and all(path.name.startswith(".") for path in folder.iterdir())


def _is_run(folder: Path) -> bool:
    return read_manifest(folder) is not None or any(folder.glob("rank-[0-9][0-9][0-9].jsonl"))
