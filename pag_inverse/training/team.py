"""The processes of one training run, which end together: what one of them meets is raised in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pag_inverse.runtime.processes import Processes

T = TypeVar("T")
_ENDED = "another process of this run has ended; the same command goes on from the last state"


class Team:
    """One process among those of a run. Between two meetings each works alone and keeps the error that it meets."""

    def __init__(self, processes: Processes | None = None) -> None:
        self.processes = processes or Processes()
        self.rank, self.world = self.processes.rank, self.processes.world
        self.problem: Exception | None = None
        self.gpus: Any = None  # NCCL's group of the processes

    def join(self) -> None:
        """Meet the others; ChildProcessError where they do not come."""
        try:
            self.processes.join()
        except (RuntimeError, ValueError) as error:
            raise ChildProcessError(f"the processes of this run cannot meet: {error}") from error

    def compute_on(self, device: torch.device) -> None:
        """Let gradients on GPUs pass between these; all else passes between the processors."""
        if self.world > 1 and device.type == "cuda":
            self.gpus = dist.new_group(backend="nccl")

    def attempt(self, act: Callable[[], T]) -> T | None:
        """Do something; an error is raised at once in a single process, else kept for the next meeting."""
        if self.world == 1:
            return act()
        if self.problem is not None:
            return None
        try:
            return act()
        except Exception as error:  # whatever it is, the others must not wait for this process
            self.problem = error
            return None

    def meet(self, number: float = 0.0) -> float:
        """The mean of a number over all processes; where one of them keeps an error, all raise it."""
        if self.world == 1:
            return number
        said = torch.tensor([number, float(self.problem is not None)], dtype=torch.float64)
        self.add(said)
        if said[1] > 0:
            problems = self.processes.gather(self._told())
            own, self.problem = self.problem, None
            raise own or next(problem for problem in problems if problem is not None)
        return float(said[0]) / self.world

    def add(self, numbers: Tensor) -> None:
        """Replace a tensor by its sum over all processes; ChildProcessError where one of them has ended."""
        try:
            dist.all_reduce(numbers, group=self.gpus if numbers.is_cuda else None)
        except RuntimeError as error:
            raise ChildProcessError(_ENDED) from error

    def _told(self) -> Exception | None:
        """The error as the others raise it."""
        if self.problem is None or isinstance(self.problem, (ValueError, OSError, MemoryError)):
            return self.problem
        return ChildProcessError(f"process {self.rank} failed: {self.problem}")
