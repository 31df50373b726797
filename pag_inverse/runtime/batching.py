"""How many images fit into memory at once."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Item = TypeVar("Item")
# A processor gains little from more images at once. Half of the memory is left to other programs and to what is not
# counted.
PROCESSOR_LARGEST = 8
PROCESSOR_SHARE = 0.5
LEAST_A_PIXEL = 1000  # bytes that a step takes at least: 24 channels in ten layers


class TensorMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make inside it, on a processor: `alive` now, and their `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self._seen: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        held = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(output):
            if isinstance(x, Tensor) and id(x.untyped_storage()) not in held:
                self._count(x.untyped_storage())
        return output

    def _count(self, storage: Any) -> None:
        key = id(storage)
        if key in self._seen:
            return
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        self._seen[key] = weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.alive -= size
        self._seen.pop(key, None)


def largest_batch(step: Callable[[int], object], device: str, limit: int, processes: int = 1) -> int:
    """The most images, 1 to `limit`, that a step takes at once; `step(n)` runs one with n images.

    On a GPU the number is found by trying: doubled until memory runs out, then bisected. On a processor it follows
    from the bytes of one image: at most 8 images, in half of the available memory divided by `processes`.
    """
    if limit <= 1:
        return 1
    if device.startswith("cuda"):
        return _largest_tried(lambda n: _fits(step, n), limit)
    with TensorMemory() as memory:
        step(1)
    room = PROCESSOR_SHARE * available_memory() / processes
    return max(1, min(limit, PROCESSOR_LARGEST, int(room / max(1, memory.peak))))


def _largest_tried(fits: Callable[[int], bool], limit: int) -> int:
    """The largest n from 1 to `limit` for which `fits(n)`, assumed monotonic; 1 where none does."""
    good, bad = 1, limit + 1
    while bad - good > 1:
        n = min(2 * good, limit) if bad > limit else (good + bad) // 2
        if fits(n):
            good = n
        else:
            bad = n
    return good


def _fits(step: Callable[[int], object], n: int) -> bool:
    try:
        step(n)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def split_where_full(run: Callable[[Sequence[Item]], None], batch: Sequence[Item]) -> None:
    """run(batch); where the GPU's memory runs out, its halves instead. ValueError where one image does not fit."""
    try:
        run(batch)
        return
    except torch.cuda.OutOfMemoryError as error:
        if len(batch) == 1:
            raise ValueError(
                "the GPU's memory does not hold one image; use --low-memory, --precision bfloat16 or a smaller --size"
            ) from error
    torch.cuda.empty_cache()
    half = len(batch) // 2
    split_where_full(run, batch[:half])
    split_where_full(run, batch[half:])


def check_memory(height: int, width: int) -> None:
    """ValueError where a picture is so large that no network could restore it in the memory of this machine."""
    needed, total = LEAST_A_PIXEL * height * width, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > total:
        raise ValueError(
            f"a picture of {width} x {height} pixels takes more than {needed / 1e9:.0f} GB of memory; this machine has "
            f"{total / 1e9:.0f} GB: take a smaller size"
        )


def available_memory() -> int:
    """Bytes of main memory that are free for use: as Linux says, elsewhere half of the memory."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
