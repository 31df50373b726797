"""A sweep over guidance: layers, scales, perturbations and solvers, ranked (Tables 9 and 10 of the paper)."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

from pag_inverse.data.images import png_bytes
from pag_inverse.experiments.entries import SweepEntry
from pag_inverse.experiments.sweep_generation import GenerationSubject
from pag_inverse.experiments.sweep_grid import Setting
from pag_inverse.experiments.sweep_report import Networks, write_report
from pag_inverse.experiments.sweep_restoration import RestorationSubject
from pag_inverse.experiments.sweep_subjects import Made, Subject, SweepRequest
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.runtime.processes import Processes
from pag_inverse.storage.finding import check_gathers, find_runs
from pag_inverse.storage.places import check_apart
from pag_inverse.storage.run_store import RunStore
from pag_inverse.storage.together import agree_on_settings

KIND = "sweep"
LONGEST = 150  # letters of a folder's name


def sweep(request: SweepRequest, processes: Processes | None = None) -> int:
    """Make what was not made yet, then rank the settings and draw; 1 where a picture failed.

    Several processes, as torchrun starts them, share the pictures; the first one writes the reports.
    """
    processes = processes or Processes()
    processes.join()
    try:
        run = processes.agreed(lambda: Sweep(request, processes))
        agree_on_settings(processes, [run.store], {"grid": [setting.name for setting in run.subject.settings]})
        if not request.table_only:
            with ExitStack() as opened:
                processes.agreed(lambda: opened.enter_context(run.store.open()))
                processes.agreed(run.make)
        return processes.agreed(run.report)
    finally:
        processes.leave()


class Sweep:
    """One sweep, checked and read, as one of several processes sees it; nothing is written before `make`."""

    def __init__(self, request: SweepRequest, processes: Processes) -> None:
        check_apart(request.output, [request.data])
        check_gathers(request.output, request.data)
        self.request, self.processes = request, processes
        device = f"cuda:{processes.local}" if request.device == "cuda" else request.device
        self.networks = Networks.of(request, device)
        self.subject: Subject
        self.subject = GenerationSubject(request, device) if request.generation else RestorationSubject(request, device)
        self.store = RunStore(
            request.output / self.subject.folder,
            kind=KIND,
            settings=self.subject.described,
            item="picture",
            entry=SweepEntry,
            rank=processes.rank,
            world=processes.world,
        )
        self.store.check(
            names=(f"images/{_folder(setting)}/{name}_{'x' * 8}.png" for setting, name in self.keys().values())
        )
        if request.table_only:
            find_runs(self.store.folder, KIND)
        if request.device == "cpu":
            settle_freed_memory(int(self.subject.described["size"]) ** 2)

    def make(self) -> None:
        """This process's part of the pictures that are not there, setting by setting."""
        by_key = self.keys()
        mine = self.processes.deal(list(by_key))
        pending = self.store.survey(mine).pending
        if self.processes.rank == 0 and len(pending) < len(mine):
            print(f"{len(mine) - len(pending)} of {len(mine)} already made", file=sys.stderr)
        left: dict[Setting, list[str]] = {}
        for key in pending:
            setting, name = by_key[key]
            left.setdefault(setting, []).append(name)
        total = sum(self.subject.steps(setting) * len(names) for setting, names in left.items())
        with tqdm(total=total, unit="step", disable=True if total == 0 else None) as bar:
            for setting, names in left.items():
                bar.set_description(setting.name)
                for first in range(0, len(names), self.request.batch_size):
                    self.make_batch(setting, names[first : first + self.request.batch_size], bar)

    def make_batch(self, setting: Setting, names: Sequence[str], bar: tqdm[Any]) -> None:
        """Make some pictures, and keep each."""
        begun = time.monotonic()
        made = list(self.subject.make(setting, names, lambda: bar.update(len(names))))
        seconds = round((time.monotonic() - begun) / len(names), 4)
        for one in made:
            self.keep(setting, one, seconds)

    def keep(self, setting: Setting, made: Made, seconds: float) -> None:
        """A picture's file and its line."""
        key = self.subject.key(setting, made.name)
        described = {
            "solver": setting.solver,
            "s": setting.s,
            "layers": list(setting.layers),
            "perturbation": setting.perturbation,
            "combination": setting.combination,
            "steps": self.subject.steps(setting),
            "seconds": seconds,
            **made.scores,
        }
        if made.picture is None:
            self.store.finish(key, {**described, "error": made.error})
        else:
            path = f"images/{_folder(setting)}/{made.name}_{key[:8]}.png"
            self.store.finish(key, described, {"picture": (path, png_bytes(made.picture))})

    def report(self) -> int:
        """Rank what is there, write the reports and print the table; 1 where a picture failed."""
        failures = {key: error for key, error in self.store.failures().items() if key in self.keys()}
        if self.processes.rank == 0:
            print(write_report(self.subject, self.store, self.networks, self.request.rank_by))
            print("".join(f"failed: {error}\n" for error in failures.values()), end="", file=sys.stderr)
        return 1 if failures else 0

    def keys(self) -> Mapping[str, tuple[Setting, str]]:
        """Every picture under every setting, by what it is known by."""
        subject = self.subject
        return {subject.key(setting, name): (setting, name) for setting in subject.settings for name in subject.names}


def _folder(setting: Setting) -> str:
    """Where the pictures of a setting lie, in words."""
    return re.sub(r"[^\w.+-]+", "_", setting.name)[:LONGEST].rstrip("_")
