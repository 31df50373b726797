"""Errors that are the machine's and not the input's."""

from __future__ import annotations

import errno


class Interrupted(OSError):
    """A run that was at work met an error of the machine; the same command goes on where it stopped."""


def is_machine_error(error: OSError) -> bool:
    """Whether other input would not help: a full or broken disk, another process that ended, a run that was at work."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ENODEV)
    return isinstance(error, (ChildProcessError, Interrupted)) or error.errno in full


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch says so with a RuntimeError."""
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ("can't allocate memory", "out of memory")
    )
