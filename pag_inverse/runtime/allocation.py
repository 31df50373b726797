"""What becomes of the main memory that tensors have left. Everything here changes the whole process.

So only commands call it. `pag_inverse.cli` asks for large pages as it is imported. The engines of commands call
`settle_freed_memory`: `restoration.run`, `evaluation.run`, `experiments.search`, `.ablation` and `.comparison`, and
`benchmark.worker`. Library functions such as `restore` and `solve` never do.

glibc returns freed blocks of 32 MiB and more to the system at once. The next tensor of that size then gets pages that
are zeroed first, which takes up to a third of a DPS step at 256 px. Kept memory is used again at once, but the peak
grows, and for large blocks it grows too much. Pages of 2 MiB instead of 4 KiB make
returned memory cheaper to get again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

# mallopt's parameters, as glibc's malloc.h numbers them.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
NEVER = -1
GLIBC_MAPPINGS, GLIBC_LARGEST_THRESHOLD = 65536, 32 * 2**20
KEPT_PIXELS = 256 * 256
SET_THP_DISABLE = 41  # prctl's, as Linux numbers it


def ask_for_huge_pages() -> None:
    """Let torch ask Linux for pages of 2 MiB for large tensors; an environment variable that is set already wins.

    Torch reads it once, at its first tensor: call this as the program starts.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def settle_freed_memory(pixels: int, low_memory: bool = False) -> None:
    """Keep freed memory for pictures of at most 256 x 256 pixels; return it for larger ones, or to save memory.

    Results do not change. Measured with large pages: kept memory saves 15 % of the time for 0.6 GB more than 2.4 GB
    (FFHQ architecture, 256 px), and 16 % for 2.4 GB more than 8.5 GB (Stable Diffusion with PSLD, 448 px).
    """
    if is_kept(pixels, low_memory):
        keep_freed_memory()
    else:
        return_freed_memory()


def is_kept(pixels: int, low_memory: bool = False) -> bool:
    """Whether `settle_freed_memory` keeps freed memory for pictures of so many pixels."""
    return pixels <= KEPT_PIXELS and not low_memory


@contextlib.contextmanager
def system_defaults(kept: bool) -> Iterator[None]:
    """Inside, memory is returned and paged as glibc and Linux do it by default; `kept`: keep it again afterwards."""
    if kept:
        return_freed_memory()
    _allow_huge_pages(False)
    try:
        yield
    finally:
        _allow_huge_pages(True)
        if kept:
            keep_freed_memory()


def keep_freed_memory() -> bool:
    """Keep freed memory in this process for its next tensors; False where the C library is not glibc."""
    return _set((TRIM_THRESHOLD, NEVER), (MMAP_MAX, 0))


def return_freed_memory() -> bool:
    """Return what is kept to the system, and from now on large blocks as they are freed: glibc's default."""
    told = _set(
        (MMAP_THRESHOLD, GLIBC_LARGEST_THRESHOLD),
        (TRIM_THRESHOLD, 2 * GLIBC_LARGEST_THRESHOLD),
        (MMAP_MAX, GLIBC_MAPPINGS),
    )
    if told:
        ctypes.CDLL(None).malloc_trim(0)
    return told


def _allow_huge_pages(allowed: bool) -> None:
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(SET_THP_DISABLE, int(not allowed), 0, 0, 0)


def _set(*values: tuple[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) == 1 for parameter, value in values)
