"""Files that are written whole or not at all, and how a run's folder is known."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

# What a run's folder is known by: this file, whose "format" says so.
MANIFEST, RUN_FORMAT = "manifest.json", "pag_inverse run"


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that no reader and no interruption ever sees a part of it; OSErrors name `path`.

    The content is on the disk when this returns: what is written afterwards may rely on it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
