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


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file `path`."""
    try:
        lock(path).release()
    except ValueError:
        return True
    return False
