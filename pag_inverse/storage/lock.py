"""One writer a folder: locks that end with the process that holds them, however it ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


def lock(path: Path) -> FileLock:
    """Take the lock file `path`; ValueError where another process, or another store of this one, holds it."""
    held = FileLock(path, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise ValueError(f"{path.parent}: another run is at work in this folder") from error
    return held


def lock_path(folder: Path, rank: int) -> Path:
    """The lock file of a process of a run."""
    return folder / f".rank-{rank:03d}.lock"


def refuse_writers(folder: Path, own: range) -> None:
    """ValueError where a process is at work in the folder whose rank is none of `own`."""
    names = {lock_path(folder, rank) for rank in own}
    if any(is_held(path) for path in sorted(folder.glob(".rank-*.lock")) if path not in names):
        raise ValueError(f"{folder}: another run is at work in this folder")


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file `path`."""
    try:
        lock(path).release()
    except ValueError:
        return True
    return False
