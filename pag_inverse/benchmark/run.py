"""A run of the benchmark: every case in processes of its own, a table, and a JSON with all figures.

A process of its own for each case keeps its peak memory apart. What is compared runs in turns within one process, so
that other programs slow all of it alike.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pag_inverse.benchmark.case import ARCHITECTURES, DATASET, EMBEDDED, GUIDANCES, Case
from pag_inverse.benchmark.reference import has_reference
from pag_inverse.benchmark.table import curve, sampling_summary, sampling_table, summary, table
from pag_inverse.data.files import write_whole
from pag_inverse.priors import load_prior
from pag_inverse.priors.precision import check_compiler, check_speed, precision_dtype
from pag_inverse.runtime.batching import check_memory
from pag_inverse.runtime.devices import check_device
from pag_inverse.settings import Count, Names, check_choice, check_different, load_prior_config, settings
from pag_inverse.settings.files import read_json
from pag_inverse.settings.request import Device
from pag_inverse.solvers import default_solver, solver_class
from pag_inverse.storage.json_lines import strict
from pag_inverse.storage.places import check_names, check_writable


@settings
class BenchmarkRequest:
    """What is measured: every combination of priors, sides, batches and precisions; `steps` are of a restoration.

    `priors`: embedded ones and ARCHITECTURES. `solvers`: each with the priors of its kind, by default DPS and PSLD.
    `sizes`: sides in pixels, by default the prior's own. `threads`: of the
    processor, by default torch's choice. `guidances`: an iteration of sampling under each of these of GUIDANCES is
    measured in place of the steps of solvers. `output`: the JSON.
    """

    priors: Names = EMBEDDED
    solvers: Names = ()
    task: str = "gaussian_deblur"
    sizes: tuple[Count, ...] = ()
    batches: tuple[Count, ...] = (1,)
    precisions: Names = ("float32",)
    steps: tuple[Count, ...] = (1000,)
    repeats: Count = 5
    device: Device = "cpu"
    threads: Count | None = None
    compile: bool = False
    channels_last: bool = False
    low_memory: bool = False
    reference: bool = True
    profile: bool = False
    guidances: Names = ()
    output: Path = Path("results") / "benchmark.json"


def benchmark(request: BenchmarkRequest) -> int:
    """Measure every case, print the table and write the JSON. ValueError: bad input, or a case that fails."""
    check(request)
    planned, rows = list(cases(request)), []
    for number, case in enumerate(planned, start=1):
        print(f"{number} of {len(planned)}: {case.title()}", file=sys.stderr)
        guidances = request.guidances
        rows.append(measure_sampling(case, guidances) if guidances else measure(case, request.profile))
    if request.guidances:
        found = [line for row in rows for line in sampling_summary(row)]
        print(sampling_table(found))
    else:
        found = [summary(row, steps) for row in rows for steps in request.steps]
        print(table(found))
        print(curve(found))
    for row in rows:
        if "profile" in row:
            print(f"\n{row['title']}, the five largest entries of a step:\n{row['profile']}")
    request.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "cases": rows, "table": found}
    write_whole(request.output, json.dumps(strict(content), indent=1, allow_nan=False).encode())
    print(f"written to {request.output}")
    return 0


def check(request: BenchmarkRequest) -> None:
    """ValueError where the device, a number format or the place of the JSON is not to be had; nothing is measured."""
    if os.path.lexists(request.output) and not _is_ours(request.output):
        raise ValueError(f"{request.output} is there and no benchmark's JSON; give another --output")
    check_writable(request.output.parent)
    check_names([str(request.output.absolute())])
    device = check_device(request.device)
    for precision in request.precisions:
        check_speed(precision_dtype(precision), device)
    if request.compile:
        check_compiler(request.device)
    if request.guidances and (request.solvers or request.profile):
        raise ValueError("--guidances measures sampling: --solver and --profile do nothing with it; leave them out")
    for name in request.guidances:
        check_choice("--guidances", name, GUIDANCES)
    for name in ("priors", "sizes", "batches", "precisions", "steps", "guidances"):
        check_different(f"--{name}", getattr(request, name))
    for case in cases(request):
        if device.type == "cpu":
            check_memory(case.size * case.batch, case.size)
        if case.prior in EMBEDDED:
            load_prior(case.prior).state_shape((3, case.size, case.size))


def _is_ours(file: Path) -> bool:
    try:
        return {"machine", "cases", "table"} <= set(read_json(file))
    except ValueError:
        return False


def cases(request: BenchmarkRequest) -> Iterator[Case]:
    """Every case of a request; each prior goes with the solvers that are meant for its kind."""
    for name in request.priors:
        check_choice("prior", name, [*EMBEDDED, *ARCHITECTURES])
    for name, batch, precision in itertools.product(request.priors, request.batches, request.precisions):
        config = load_prior_config(ARCHITECTURES.get(name, name))
        sizes, solvers = request.sizes or (config.image_size,), solvers_of(request, name, config.kind)
        for solver, size in itertools.product(solvers, sizes):
            yield Case(
                prior=name,
                solver=solver,
                dataset=config.dataset or DATASET,
                task=request.task,
                size=size,
                batch=batch,
                precision=precision,
                device=request.device,
                threads=request.threads,
                repeats=request.repeats,
                compile=request.compile,
                channels_last=request.channels_last,
                low_memory=request.low_memory,
                reference=request.reference and has_reference(solver),
            )


def solvers_of(request: BenchmarkRequest, prior: str, kind: str) -> list[str]:
    """The solvers of a request that are meant for a prior's kind; ValueError where there is none."""
    if not request.solvers:
        return [default_solver(kind)]
    found = [name for name in request.solvers if solver_class(name).default_prior == kind]
    if not found:
        raise ValueError(f"none of the solvers {', '.join(request.solvers)} is meant for prior {prior}")
    return found


def measure(case: Case, profile: bool) -> dict[str, Any]:
    """All of one case: its times in one process, its peak memory and the reference's in one more each."""
    row = {"title": case.title(), **asdict(case), **work(case, "time")}
    row["memory"] = {"ours": work(case, "ours")}
    if case.reference:
        row["memory"]["published"] = work(case, "published")
    if profile:
        row["profile"] = work(case, "profile")["profile"]
    return row


def measure_sampling(case: Case, guidances: Sequence[str]) -> dict[str, Any]:
    """The times of iterations in one process, and the memory under each guidance in one more each."""
    row = {"title": case.title(), **asdict(case), **work(case, f"sampling:{','.join(guidances)}")}
    row["memory"] = {name: work(case, f"sampling_memory:{name}") for name in row["seconds"]}
    return row


def work(case: Case, what: str) -> dict[str, Any]:
    """Run one part of a case in a process of its own; ValueError with its last line where it fails."""
    print(f"  {what}", file=sys.stderr)
    command = [sys.executable, "-m", "pag_inverse.benchmark.worker", what, json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(f"{case.title()}, {what}: {lines[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from importlib.metadata import version

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
    }
