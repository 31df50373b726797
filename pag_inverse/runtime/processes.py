"""The processes of one run: who they are, which images are whose, and that a folder has one run at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = timedelta(days=14)  # a process that is done waits for the others


@dataclass(frozen=True)
class Processes:
    """This process's number among `world`; `local` is its number on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Processes:
        """Read RANK, WORLD_SIZE and LOCAL_RANK as torchrun and accelerate set them; ValueError where they disagree."""
        rank, world = _whole(environment, "RANK", 0), _whole(environment, "WORLD_SIZE", 1)
        if not 0 <= rank < world:
            raise ValueError(f"RANK is {rank} and WORLD_SIZE {world}; a rank is from 0 to WORLD_SIZE - 1")
        if world > 1 and "MASTER_ADDR" not in environment:
            raise ValueError("WORLD_SIZE is set without MASTER_ADDR; torchrun or accelerate launch set both")
        return cls(rank, world, _whole(environment, "LOCAL_RANK", rank))

    def deal(self, ids: Sequence[T]) -> list[T]:
        """This process's part: those whose position in the sorted list is `rank` modulo `world`."""
        return list(ids[self.rank :: self.world])

    def join(self) -> None:
        """Meet the others, on the processor whatever the networks run on: before and after sampling, never within."""
        import torch.distributed as dist

        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=_PATIENCE)

    def gather(self, mine: Any) -> list[Any]:
        """What each process says, in their order; all wait for the last one."""
        import torch.distributed as dist

        if self.world == 1:
            return [mine]
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, mine)
        return said

    def leave(self) -> None:
        import torch.distributed as dist

        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal():
        raise ValueError(f"{name} is {value!r} in the environment; torchrun and accelerate launch set a whole number")
    return int(value)


class FolderLock:
    """Holds a file in a folder's `.locks` for this process until it ends: however it ends, nothing stale is left."""

    def __init__(self, path: Path) -> None:
        """Take the lock; ValueError where another process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise ValueError(f"{path.parent.parent}: another run is at work in this folder") from error

    def release(self) -> None:
        os.close(self._descriptor)


def held_beside(folder: Path, names: Sequence[str]) -> list[str]:
    """The lock files of a folder, other than `names`, that some process holds."""
    held = []
    for path in sorted(folder.glob("*.lock")):
        if path.name not in names:
            try:
                FolderLock(path).release()
            except ValueError:
                held.append(path.name)
    return held
