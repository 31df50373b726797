"""What a comparison restores, one job for each restoration, and the store that makes each job once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from pag_inverse.data.files import write_whole
from pag_inverse.data.images import png_bytes, read_picture
from pag_inverse.experiments.entries import DistanceLine, JobEntry
from pag_inverse.experiments.methods import digest
from pag_inverse.experiments.trials import score
from pag_inverse.metrics.perceptual import Lpips
from pag_inverse.reports.comparison import comparison_page, sections_of
from pag_inverse.reports.comparison_summary import comparison_markdown
from pag_inverse.reports.contents import ComparisonReport, Restoration
from pag_inverse.storage.entries import Entry
from pag_inverse.storage.run_store import RunStore

KIND = "comparison"


@dataclass(frozen=True)
class Made:
    """A restoration (3, H, W) in [-1, 1], its residual over sigma sqrt(m), and the passes of networks it took.

    `error` says why it failed; then the image is not meaningful.
    """

    image: Tensor
    residual: float
    passes: Mapping[str, int] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Job:
    """One restoration: of which measurement, by what, which of its samples, and how it is made.

    `made_of` is all that decides it beside the run's settings, for JSON; `truth` is (3, H, W); `steps` count in the
    bar.
    """

    task: str
    method: str
    picture: str
    sample: int
    made_of: Any
    truth: Tensor
    make: Callable[[], Made]
    steps: int = 0

    @property
    def key(self) -> str:
        """What it is known by in the store."""
        return f"{self.task}/{self.method}/{self.picture}/{self.sample}/{digest(self.made_of)}"


class JobStore:
    """The folder of a comparison: a PNG and an entry for each restoration, the truths, and tuned strengths."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], rank: int = 0, world: int = 1) -> None:
        self.run = RunStore(
            folder, kind=KIND, settings=settings, rank=rank, world=world, item="restoration", entry=JobEntry
        )

    def make(self, jobs: Sequence[Job]) -> None:
        """Make what is not there, with a bar where steps count."""
        pending = set(self.run.survey([job.key for job in jobs]).pending)
        left = [job for job in jobs if job.key in pending]
        total = sum(job.steps for job in left)
        with tqdm(total=total, unit="step", disable=True if total == 0 else None) as bar:
            for job in left:
                begun, cpu_begun = time.monotonic(), time.process_time()
                made = job.make()
                self._add(job, made, time.monotonic() - begun, time.process_time() - cpu_begun)
                bar.update(job.steps)

    def strength(self, name: str, made_of: Any, allowed: Sequence[Any], tune: Callable[[], Any] | None) -> Any:
        """A tuned strength, from the store or else by `tune`; KeyError where it is not there and cannot be tuned."""
        key = f"strength/{name}/{digest(made_of)}"
        entry = self.run.entries().get(key)
        if entry is not None and entry.get("strength") not in allowed:
            entry = None  # damaged
        if entry is None and tune is not None:
            entry = {"strength": tune()}
            self.run.finish(key, entry)
        if entry is None:
            raise KeyError(key)
        return entry["strength"]

    def write_page(
        self,
        jobs: Iterable[Job],
        tuned: Mapping[str, Any],
        lpips: Lpips | None,
        about_lpips: str,
        notes: Sequence[str],
        reference: str,
    ) -> Path:
        """Write `comparison.html` and `comparison.md` from those jobs that are made and whole; the former's path."""
        jobs, entries = list(jobs), self.run.entries()
        finished = self.run.survey([job.key for job in jobs]).finished
        made = [(job, entries[job.key]) for job in jobs if job.key in finished]
        distances = {} if lpips is None else self._distances([entry for _, entry in made], lpips)
        tasks: dict[str, list[Restoration]] = {}
        for job, entry in made:
            tasks.setdefault(job.task, []).append(self._restoration(job, entry, distances))
        truths = {job.picture: self.run.path(entry, "truth") for job, entry in made}
        size, seed = self.run.settings["size"], self.run.settings["seed"]
        report = ComparisonReport(size, seed, truths, tasks, tuned, about_lpips, notes, reference)
        sections = sections_of(report, lpips)
        page = self.run.folder / "comparison.html"
        write_whole(page, comparison_page(report, sections).encode(errors="backslashreplace"))
        write_whole(page.with_suffix(".md"), comparison_markdown(report, sections).encode(errors="backslashreplace"))
        return page

    def failures(self, jobs: Sequence[Job]) -> list[str]:
        """A line for each of these jobs that failed."""
        failed = self.run.failures()
        return [f"{job.task}, {job.method}, {job.picture}: {failed[job.key]}" for job in jobs if job.key in failed]

    def names(self, pictures: Iterable[str]) -> list[str]:
        """The longest names that it gives to the files of these pictures."""
        return [f"images/{'x' * 60}_{name}.png" for name in pictures]

    def _add(self, job: Job, made: Made, seconds: float, cpu_seconds: float) -> None:
        if made.error:
            self.run.finish(job.key, {"error": made.error})
            return
        name = "_".join((job.task, job.method, job.picture, str(job.sample), digest(job.made_of)))
        files = {
            "restoration": (f"images/{name}.png", png_bytes(made.image)),
            "truth": (f"truths/{job.picture}.png", png_bytes(job.truth)),
        }
        entry = {
            "task": job.task,
            "method": job.method,
            "picture": job.picture,
            "sample": job.sample,
            "made_of": job.made_of,
            **score(made.image, job.truth),
            "residual": made.residual,
            "passes": made.passes,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        }
        self.run.finish(job.key, entry, files)

    def _distances(self, entries: Sequence[Entry], lpips: Lpips) -> dict[str, float]:
        """LPIPS of each restoration by its key; computed once, and kept in lpips-000.jsonl."""
        known = {line["key"]: line["lpips"] for line in self.run.lines("lpips", DistanceLine)}
        found = {}
        for entry in entries:
            kinds = ("restoration", "truth")
            key = digest([lpips.net, *(entry["files"][kind]["sha256"] for kind in kinds)])
            if key not in known:
                known[key] = lpips(*(read_picture(self.run.path(entry, kind)) for kind in kinds))
                self.run.append("lpips", {"key": key, "lpips": known[key]})
            found[entry["restoration"]] = known[key]
        return found

    def _restoration(self, job: Job, entry: Entry, distances: Mapping[str, float]) -> Restoration:
        names = ("psnr", "ssim", "sharpness", "residual")
        scores = {name: float("nan") if entry[name] is None else entry[name] for name in names}
        if job.key in distances:
            scores["lpips"] = distances[job.key]
        costs = {name: entry[name] for name in ("seconds", "cpu_seconds") if entry.get(name) is not None}
        file = self.run.path(entry, "restoration")
        return Restoration(job.method, job.picture, job.sample, scores, file, entry.get("passes") or {}, costs)
