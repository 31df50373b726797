"""The runs that a folder holds."""

from __future__ import annotations

from collections.abc import Callable
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
    _check_holds(folder, _is_below_root)


def check_gathers(folder: Path, data: Path) -> None:
    """ValueError where a folder that shall gather runs, each in a folder of its own, has files in it and no run.

    Also where it lies below `data`, the folder of the input, and no run is in it.
    """
    absolute = folder.absolute()
    _check_holds(absolute, _is_run)
    if not _holds(absolute, _is_run) and data.resolve() in absolute.resolve().parents:
        raise ValueError(f"--output {folder} lies in the folder of the input {data}; give another --output")


def _check_holds(folder: Path, is_run: Callable[[Path], bool]) -> None:
    if _visible(folder) and not _holds(folder, is_run):
        raise ValueError(f"{folder} is not empty and holds no runs; give another --output")


def _holds(folder: Path, is_run: Callable[[Path], bool]) -> bool:
    return any(path.is_dir() and (is_run(path) or _is_started(path)) for path in _visible(folder))


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


def _is_below_root(folder: Path) -> bool:
    found = read_manifest(folder)
    return found["root"] == ".." if found else _is_run(folder)


def _is_started(folder: Path) -> bool:
    """Whether a run was killed before its manifest was there."""
    return any(folder.glob(".rank-*.lock")) and all(path.name.startswith(".") for path in folder.iterdir())


def _is_run(folder: Path) -> bool:
    return read_manifest(folder) is not None or any(folder.glob("rank-[0-9][0-9][0-9].jsonl"))
