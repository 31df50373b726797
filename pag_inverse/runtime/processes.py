"""The processes of one run: who they are, which images are whose, and what they must agree on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from pag_inverse.runtime.failures import is_machine_error

T = TypeVar("T")
_MEETING = timedelta(minutes=10)  # to start
_PATIENCE = timedelta(days=14)  # a process that is done waits for the others
_PATIENT: list[Any] = []  # the group of those that wait so long


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
            try:
                dist.init_process_group("gloo", timeout=_MEETING)
            except RuntimeError as error:  # also torch.distributed's own kinds
                raise ChildProcessError("not all processes of this run have started") from error
            _PATIENT.append(dist.new_group(timeout=_PATIENCE))

    def gather(self, mine: T) -> list[T]:
        """What each process says, in their order; all wait for the last one. ChildProcessError where one has ended."""
        import torch.distributed as dist

        if self.world == 1:
            return [mine]
        said: list[T] = [mine] * self.world
        try:
            dist.all_gather_object(said, mine, group=_PATIENT[-1] if _PATIENT else None)
        except RuntimeError as error:
            raise ChildProcessError("another process of this run has ended") from error
        return said

    def agreed(self, act: Callable[[], T]) -> T:
        """Do something in every process; where it fails in one of them, all of them raise an error of one line."""
        found: list[T] = []
        own: Exception | None = None
        try:
            found.append(act())
        except ChildProcessError:  # the others cannot be told
            raise
        except Exception as error:  # whatever it is, the others must not wait for this process
            own = error
        problems = [said for said in self.gather(_told(own)) if said is not None]
        if own is not None:
            raise own
        if problems:
            kind, text = problems[0]
            raise kind(text)
        return found[0]

    def leave(self) -> None:
        """Part from the others."""
        import torch.distributed as dist

        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def exit_status(status: int) -> int:
    """The status to leave with; a process among others leaves here and now.

    All is written by then. Tearing the interpreter down while torch's threads still ran aborted one process in ten,
    and its launcher then called the whole run failed.
    """
    if "torch.distributed" in sys.modules and os.environ.get("WORLD_SIZE", "1") not in ("0", "1"):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)
    return status


def _told(error: Exception | None) -> tuple[type[Exception], str] | None:
    """A process's error as the others raise it: bad input stays bad input."""
    if error is None:
        return None
    of_input = isinstance(error, ValueError) or (isinstance(error, OSError) and not is_machine_error(error))
    return (ValueError if of_input else ChildProcessError), str(error) or type(error).__name__


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal():
        raise ValueError(f"{name} is {value!r} in the environment; torchrun and accelerate launch set a whole number")
    return int(value)
