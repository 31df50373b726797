"""How far an evaluation is: a bar a process, or lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pag_inverse.runtime.processes import Processes


class Progress:
    """Counts this process's images, and those of all from the lines that each has written since the start."""

    def __init__(self, folders: list[Path], mine: int, total: int, done: int, processes: Processes, log: bool) -> None:
        """`mine` images are left to this process; of `total` in all cells of all processes `done` were finished."""
        self.folders, self.mine, self.total, self.before = folders, mine, total, done
        self.processes, self.log = processes, log
        self.own, self.started, self._read = 0, time.monotonic(), self._sizes()
        self.bar = tqdm(
            total=mine,
            desc=f"process {processes.rank}",
            position=processes.rank,
            disable=log or mine == 0,
            bar_format="{desc} {percentage:3.0f}% |{bar:20}| {postfix}",
        )

    def update(self) -> None:
        """A step of a batch was taken."""
        self.bar.refresh()

    def set_postfix_str(self, text: str) -> None:
        self.bar.set_postfix_str(f"{self.own}/{self.mine} {text}", refresh=False)

    def image(self, cell: str, image_id: str) -> None:
        """An image of this process is finished."""
        self.own += 1
        self.before += self._lines_since()
        done = min(self.before, self.total)
        rate = self.own / max(time.monotonic() - self.started, 1e-9)
        left = (self.mine - self.own) / rate
        if self.log:
            self._print(cell, image_id, done, rate, left)
        self.bar.update()
        per_hour = f"{3600 * rate:.0f} images/h, {tqdm.format_interval(left)} left"
        self.bar.set_postfix_str(f"{self.own}/{self.mine}, all {done}/{self.total}, {per_hour}")

    def close(self) -> None:
        self.bar.close()

    def _print(self, cell: str, image_id: str, done: int, rate: float, left: float) -> None:
        line: dict[str, Any] = {
            "process": self.processes.rank,
            "cell": cell,
            "image": image_id,
            "own_done": self.own,
            "own_total": self.mine,
            "done": done,
            "total": self.total,
            "images_per_hour": round(3600 * rate, 1),
            "seconds_left": round(left, 1),
        }
        print(json.dumps(line), file=sys.stderr, flush=True)

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
