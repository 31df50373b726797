"""How far a run over many images is: a bar on a terminal, a line now and then in a log, or lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from pag_inverse.runtime.processes import Processes

LOG_INTERVAL = 30.0  # seconds between two lines where stderr is not a terminal


class Progress:
    """Counts this process's images, and those of all from the lines that each has written since the start."""

    def __init__(
        self, folders: Sequence[Path], mine: int, total: int, done: int, processes: Processes, json_lines: bool
    ) -> None:
        """`mine` images are left to this process; of `total` in all runs of all processes `done` were finished."""
        self.folders, self.mine, self.total, self.done = folders, mine, total, done
        self.processes, self.json_lines = processes, json_lines
        self.own, self._started, self._told = 0, time.monotonic(), 0.0
        self._read = self._sizes()
        self._bar = tqdm(
            total=mine,
            desc=f"process {processes.rank}",
            position=processes.rank,
            disable=json_lines or mine == 0 or not sys.stderr.isatty(),
            bar_format="{desc} {percentage:3.0f}% |{bar:20}| {postfix}",
            mininterval=0.5,
            miniters=0,
        )

    def step(self, done: int, steps: int, residual: float | None) -> None:
        """A step of a batch was taken."""
        if not self._bar.disable:
            told = "" if residual is None else f", residual {residual:.2f}"
            self._bar.set_postfix_str(f"{self._counts()}, step {done}/{steps}{told}", refresh=False)
            self._bar.update(0)

    def image(self, run: str, *image_ids: str) -> None:
        """An image of this process is finished, or several that were made together."""
        self.own += len(image_ids)
        self.done = min(self.total, self.done + self._lines_since())
        if self.json_lines:
            for image_id in image_ids:
                self._print(json.dumps(self._line(run, image_id)))
        elif not self._bar.disable:
            self._bar.update(len(image_ids))
        elif self.own == self.mine or time.monotonic() - self._told >= LOG_INTERVAL:
            self._told = time.monotonic()
            self._print(f"process {self.processes.rank}: {self._counts()}")

    def close(self) -> None:
        """Leave the terminal as it is."""
        self._bar.close()

    @property
    def rate(self) -> float:
        """Images a second of this process."""
        return self.own / max(time.monotonic() - self._started, 1e-9)

    def _counts(self) -> str:
        told = f"{self.own}/{self.mine}, all {self.done}/{self.total}"
        if self.own == 0:
            return told
        left = tqdm.format_interval((self.mine - self.own) / self.rate)
        return f"{told}, {3600 * self.rate:.0f} images/h, {left} left"

    def _line(self, run: str, image_id: str) -> dict[str, object]:
        return {
            "process": self.processes.rank,
            "run": run,
            "image": image_id,
            "own_done": self.own,
            "own_total": self.mine,
            "done": self.done,
            "total": self.total,
            "images_per_hour": round(3600 * self.rate, 1),
            "seconds_left": round((self.mine - self.own) / self.rate, 1),
        }

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def _sizes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for folder in self.folders for path in folder.glob("rank-*.jsonl")}

    def _lines_since(self) -> int:
        """The lines that all processes have written since the last look."""
        count = 0
        for path, size in self._sizes().items():
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                count += file.read(size - file.tell()).count(b"\n")
            self._read[path] = size
        return count
