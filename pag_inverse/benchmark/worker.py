"""The process that measures one case of the benchmark; its last line on stdout is a JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from pag_inverse.benchmark.case import Case
from pag_inverse.benchmark.reference import Reference, published_case
from pag_inverse.benchmark.sampling import Sampling
from pag_inverse.benchmark.steps import Bench, Part
from pag_inverse.runtime.allocation import ask_for_huge_pages, settle_freed_memory

MEMORY_STEPS = 2


def all_parts(bench: Bench) -> dict[str, Part]:
    """What is timed in turns: our step, its parts, and the published step where the case asks for it."""
    parts = bench.parts()
    if bench.case.reference:
        reference = Reference.beside(bench)
        parts["published"] = reference.step
        if reference.kept:  # takes back the memory that the reference returned; its time is no figure
            parts["after the reference"] = bench.ours
    return parts


def times(bench: Bench, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every part, one after the other in each of `repeats` turns, after a turn that is not counted.

    `seconds` is wall time; `processor_seconds` is the time that this process spent, whatever other programs did.
    """
    return in_turns(all_parts(bench), repeats, bench.case.device)


def in_turns(parts: Mapping[str, Part], repeats: int, device: str) -> dict[str, dict[str, list[float]]]:
    """Wall and processor seconds of each part in every turn but the first."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    spent: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(repeats + 1):
        for name, part in parts.items():
            taken, used = timed(part, device)
            if turn:
                seconds[name].append(taken)
                spent[name].append(used)
    return {"seconds": seconds, "processor_seconds": spent}


def timed(part: Part, device: str) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    synchronise(device)
    begun, used = time.perf_counter(), time.process_time()
    part()
    synchronise(device)
    return time.perf_counter() - begun, time.process_time() - used


def synchronise(device: str) -> None:
    """Wait for the device to finish."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peaks(device: str) -> dict[str, float | None]:
    """The peak memory of this process: on the device and in main memory, in MiB."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    on_device = torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else None
    return {"device_mb": on_device, "process_mb": resident}


def profile(step: Part, device: str) -> str:
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


def measure(what: str, case: Case) -> dict[str, Any]:
    """One measurement of a case: `time`, `profile`, or the memory of `ours` or of `published`.

    `sampling:NAME,NAME` is the time of an iteration under each guidance, `sampling_memory:NAME` the memory of one.
    """
    what, _, names = what.partition(":")
    if what.startswith("sampling"):
        return measure_sampling(what, case, names.split(","))
    if what == "time":
        bench = Bench(case)
        return {**times(bench, case.repeats), "threads": torch.get_num_threads(), **bench.facts()}
    if what == "profile":
        return {"profile": profile(Bench(case).ours, case.device)}
    step = Reference(Bench(published_case(case))).step if what == "published" else Bench(case).ours
    for _ in range(MEMORY_STEPS):
        step()
    return dict(peaks(case.device))


def measure_sampling(what: str, case: Case, names: list[str]) -> dict[str, Any]:
    """The times of iterations in turns, or the memory of one guidance."""
    parts = Sampling(case).parts(names)
    if what == "sampling":
        return {**in_turns(parts, case.repeats, case.device), "threads": torch.get_num_threads()}
    for _ in range(MEMORY_STEPS):
        parts[names[0]]()
    return dict(peaks(case.device))


def main(argv: list[str]) -> int:
    """Measure what the first argument says of the case in the second; the last line on stdout is a JSON."""
    what, case = argv[0], Case(**json.loads(argv[1]))
    ask_for_huge_pages()
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    if what != "published" and case.device == "cpu":
        settle_freed_memory(case.size**2, case.low_memory)  # as the commands do
    print(json.dumps(measure(what, case)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, RuntimeError) as error:
        print(" ".join(str(error).split())[:400], file=sys.stderr)
        sys.exit(2)
