"""Files that are written whole or not at all, and how a run's folder is known."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

# What a run's folder is known by: this file, whose "format" says so.
MANIFEST, RUN_FORMAT = "manifest.json", "pag_inverse run"
TEMPORARY = ".pag_inverse-"  # begins the names of files that are being written


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that no reader and no interruption ever sees a part of it; OSErrors name `path`.

    The content is on the disk when this returns: what is written afterwards may rely on it.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as file:
            _hold(file)
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
            if _hold(file):
                path.unlink()


def _hold(file: IO[bytes]) -> bool:
    """Lock an open file for as long as it is open; False where another process holds it, or none can."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
