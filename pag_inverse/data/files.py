"""Files that are written whole or not at all, and how a run's folder is known."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import IO

from pag_inverse.settings.files import parse_json, read_bytes

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

# What a run's folder is known by: this file, whose "format" says so.
MANIFEST, RUN_FORMAT = "manifest.json", "pag_inverse run"
TEMPORARY = ".pag_inverse-"  # begins the names of files that are being written


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: by its manifest, or, where that is damaged, by its record.

    Files that cannot be read, and folders that cannot be listed, are none.
    """
    try:
        if any(folder.glob("rank-[0-9][0-9][0-9].jsonl")):
            return True
        content = parse_json(read_bytes(folder / MANIFEST, limit=2**31))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == RUN_FORMAT


def check_no_run(folder: Path) -> None:
    """ValueError where a folder that shall hold pictures is a run's."""
    if is_run(folder):
        raise ValueError(f"{folder} holds the results of a run; name a folder of pictures")


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that no reader and no interruption ever sees a part of it; OSErrors name `path`.

    The content is on the disk when this returns: what is written afterwards may rely on it.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as file:
            hold(file)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files below a folder whose writer was killed; those that are being written stay."""
    for path in folder.rglob(f"{TEMPORARY}*.tmp"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if hold(file):
                path.unlink()


def hold(file: IO[bytes] | int, *, exclusive: bool = True, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False where another process holds it, or the file system has no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
