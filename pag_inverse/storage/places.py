"""Where a run may write: checks that write nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pag_inverse.runtime.failures import is_machine_error

_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes


def check_writable(folder: Path) -> None:
    """ValueError where the folder, or the nearest one above it that exists, is no folder or takes no files."""
    there = folder.absolute()
    check_names([str(there)])
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{there} is {'a file' if there.is_file() else 'no folder'}; give another --output")
    if not os.access(there, os.W_OK | os.X_OK) or not _takes_files(there):
        raise ValueError(f"{there} cannot be written; give another --output")


def _takes_files(folder: Path) -> bool:
    """Whether a file without a name can be made there: root may write to /proc, but /proc takes no files."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if is_machine_error(error):
            raise
        return False
    return True


def check_places(paths: Iterable[Path]) -> None:
    """ValueError where something else than a file, such as a folder, a link or a pipe, is in a file's place."""
    for path in paths:
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise ValueError(f"{path} is no file of a run; give another --output")


def check_apart(output: Path, inputs: Iterable[Path]) -> None:
    """ValueError where an input is the output folder or lies in it: results would become input."""
    there = _resolved(output)
    for path in inputs:
        if there in (_resolved(path), *_resolved(path).parents):
            raise ValueError(f"--output {output} is or holds the input {path}; give another --output")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} is a link that leads nowhere") from error


def check_names(paths: Iterable[str]) -> None:
    """ValueError for a path that is too long for a file system: a part of 255 bytes, or 4095 in all."""
    for path in paths:
        longest = max(os.fsencode(path).split(b"/"), key=len)
        if len(longest) > _LONGEST_NAME or len(os.fsencode(path)) > _LONGEST_PATH:
            shown = longest[:40].decode(errors="replace")
            raise ValueError(f"{shown}...: a name of {len(longest)} bytes is too long; {_LONGEST_NAME} are allowed")
