"""Measure the cost of a step: beside the step written the published way, and beside the bound of its parts alone.

Every case runs in processes of its own, so that its peak memory is its own; what is compared runs in turns within one
process, so that what else the machine does hits all alike. The figures go to the terminal and to a JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pag_inverse.cli.arguments import Parser, fail
from pag_inverse.benchmark.case import ARCHITECTURES, EMBEDDED_SOLVERS, Case
from pag_inverse.benchmark.table import curve, summary, table
from pag_inverse.settings.files import TASKS
from pag_inverse.data.images import write_whole
from pag_inverse.settings.tables import PRECISIONS

EXAMPLES = """examples:
  the embedded priors:
    python scripts/benchmark.py
  the published architectures with random weights, at their own size on a GPU:
    python scripts/benchmark.py --prior ffhq-architecture imagenet-architecture sd15-architecture --device cuda \\
        --batch 1 8 --precision float32 bfloat16
  where the time of a step goes:
    python scripts/benchmark.py --prior pixel --profile
"""


def parser() -> Parser:
    p = Parser("benchmark", __doc__, EXAMPLES)
    names = ", ".join([*EMBEDDED_SOLVERS, *ARCHITECTURES])
    p.add_argument("--prior", nargs="+", default=list(EMBEDDED_SOLVERS), choices=[*EMBEDDED_SOLVERS, *ARCHITECTURES],
                   metavar="PRIOR", help=f"{names} (architectures have random weights)")  # fmt: skip
    p.add_argument("--task", default="gaussian_deblur", choices=TASKS)
    p.add_argument("--size", type=int, nargs="+", help="sides of the picture; by default the prior's own")
    p.add_argument("--batch", type=int, nargs="+", default=[1])
    p.add_argument("--precision", nargs="+", default=["float32"], choices=PRECISIONS)
    p.add_argument("--steps", type=int, nargs="+", default=[1000], help="of a restoration, for images an hour")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, help="of the processor; by default torch's choice")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--channels-last", action="store_true")
    p.add_argument("--low-memory", action="store_true")
    p.add_argument("--no-reference", action="store_true", help="leave out the published way")
    p.add_argument("--profile", action="store_true", help="the five largest entries of a step, by torch.profiler")
    p.add_argument("--output", type=Path, help="the JSON; by default results/benchmark.json")
    return p


def cases(args: argparse.Namespace) -> Iterator[Case]:
    for prior, batch, precision in itertools.product(args.prior, args.batch, args.precision):
        own = ARCHITECTURES[prior].size if prior in ARCHITECTURES else 256
        for size in args.size or [own]:
            yield Case(
                prior=prior,
                solver=ARCHITECTURES[prior].solver if prior in ARCHITECTURES else EMBEDDED_SOLVERS[prior],
                task=args.task,
                size=size,
                batch=batch,
                precision=precision,
                device=args.device,
                threads=args.threads,
                repeats=args.repeats,
                compile=args.compile,
                channels_last=args.channels_last,
                low_memory=args.low_memory,
                reference=not args.no_reference,
            )


def main(argv: list[str] | None = None) -> int:
    """0: done; 2: bad input or a case that failed, one line on stderr; 130: stopped by Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        return run(args)
    except (ValueError, OSError) as error:
        return fail("benchmark", error)
    except KeyboardInterrupt:
        return 130


def run(args: argparse.Namespace) -> int:
    _check(args)
    planned, rows = list(cases(args)), []
    for number, case in enumerate(planned, start=1):
        print(f"{number} of {len(planned)}: {case.title()}", file=sys.stderr)
        rows.append(measure(case, args.profile))
    found = [summary(row, steps) for row in rows for steps in args.steps]
    print(table(found))
    print(curve(found))
    for row in rows:
        if "profile" in row:
            print(f"\n{row['title']}, the five largest entries of a step:\n{row['profile']}")
    output = args.output or Path("results") / "benchmark.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "cases": rows, "table": found}
    write_whole(output, json.dumps(content, indent=1).encode())
    print(f"written to {output}")
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ("repeats", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}; it must be at least 1")
    for name in ("size", "batch", "steps"):
        for value in getattr(args, name) or []:
            if value < 1:
                raise ValueError(f"--{name} is {value}; it must be at least 1")
    if args.output is not None and args.output.is_dir():
        raise ValueError(f"{args.output} is a folder; --output names a file")


def measure(case: Case, profile: bool) -> dict[str, Any]:
    """All of one case: its times in one process, its peak memory and the reference's in one more each."""
    row = {"title": case.title(), **asdict(case), **work(case, "time")}
    row["memory"] = {"ours": work(case, "ours")}
    if case.reference:
        row["memory"]["published"] = work(case, "published")
    if profile:
        row["profile"] = work(case, "profile")["profile"]
    return row


def work(case: Case, what: str) -> dict[str, Any]:
    """Run one part of a case in a process of its own; ValueError with its last line where it fails."""
    print(f"  {what}", file=sys.stderr)
    command = [sys.executable, "-m", "pag_inverse.cli.benchmark_worker", what, json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(f"{case.title()}, {what}: {lines[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
    }


if __name__ == "__main__":
    sys.exit(main())
