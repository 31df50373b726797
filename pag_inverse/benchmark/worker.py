"""The process that measures one case of the benchmark; its last line on stdout is a JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.benchmark.case import Case
from pag_inverse.benchmark.steps import Bench

MEMORY_STEPS = 2


def times(bench: Bench, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every part, one after the other in each of so many turns, after a turn that is not counted.

    `seconds` went by; `processor_seconds` were spent by this process, whatever else the machine did meanwhile.
    """
    parts = bench.parts()
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    spent: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(repeats + 1):
        for name, part in parts.items():
            taken, used = timed(part, bench.case.device)
            if turn:
                seconds[name].append(taken)
                spent[name].append(used)
    return {"seconds": seconds, "processor_seconds": spent}


def timed(part: Callable[[], object], device: str) -> tuple[float, float]:
    synchronise(device)
    begun, used = time.perf_counter(), time.process_time()
    part()
    synchronise(device)
    return time.perf_counter() - begun, time.process_time() - used


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peaks(device: str) -> dict[str, float | None]:
    """The most that this process has held: on the device and in main memory, in MiB."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    on_device = torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else None
    return {"device_mb": on_device, "process_mb": resident}


def profile(step: Callable[[], object], device: str) -> str:
    """The five largest entries of a step by their own time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if device.startswith("cuda"):
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        key = "self_cuda_time_total"
    step()
    with torch.profiler.profile(activities=activities) as recorded:
        step()
        synchronise(device)
    lines = recorded.key_averages().table(sort_by=key, row_limit=5, max_name_column_width=50)
    return str(lines)


def main(argv: list[str]) -> int:
    what, case = argv[0], Case(**json.loads(argv[1]))
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    if what != "published" and case.device == "cpu":
        settle_freed_memory(case.size**2, case.low_memory)  # as the commands do
    result: dict[str, Any]
    if what == "time":
        bench = Bench(case)
        result = {**times(bench, case.repeats), "threads": torch.get_num_threads(), **bench.facts()}
    elif what == "profile":
        result = {"profile": profile(Bench(case).ours, case.device)}
    else:
        bench = Bench(case, published=what == "published")
        step = bench.published if what == "published" else bench.ours
        for _ in range(MEMORY_STEPS):
            step()
        result = peaks(case.device)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, RuntimeError) as error:
        print(" ".join(str(error).split())[:400], file=sys.stderr)
        sys.exit(2)
