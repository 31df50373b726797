"""The folder of a comparison: one PNG and one line of JSON for each restoration, so that nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor

from pag_inverse.data.images import write_png, write_whole
from pag_inverse.storage.json_lines import append_line, read_lines


class Ledger:
    """What is done so far, by (task, method, picture, sample); ValueError where the folder holds another comparison.

    `settings.json` says what is compared, `tuned.json` the strengths of classical methods, `cells.jsonl` has a line a
    restoration, which lies in `images`, and the truths in `truths`. A line is written after its picture.
    `source(task, method)` names what a method is made of: what another source made is no longer there.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], source: Callable[[str, str], str]) -> None:
        self.folder, self.settings, self.source = folder, settings, source
        found = self._read("settings.json")
        if found is not None and found != settings:
            other = sorted(k for k in {**found, **settings} if found.get(k) != settings.get(k))
            raise ValueError(f"{folder} holds a comparison with other {', '.join(other)}; give another --output")
        for name in ("images", "truths"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._write("settings.json", settings)
        self.tuned: dict[str, Any] = self._read("tuned.json") or {}
        entries, _ = read_lines(folder / "cells.jsonl")
        kept = (e for e in entries if e["source"] == source(e["task"], e["method"]))
        self.entries = {self._key(e): e for e in kept if (folder / e["file"]).is_file()}

    def __contains__(self, cell: Any) -> bool:
        return self._key(asdict(cell)) in self.entries

    def add(self, cell: Any, image: Tensor, truth: Tensor, residual: float, seconds: float | None = None) -> None:
        """Save a restoration (3, H, W), then its line with what it scores against the truth."""
        from pag_inverse.experiments.trials import score

        source = self.source(cell.task, cell.method)
        parts = (cell.task, cell.method, cell.picture, str(cell.sample), source)
        name = f"images/{'_'.join(part for part in parts if part)}.png"
        write_png(self.folder / name, image)
        entry = {
            **asdict(cell),
            "source": source,
            "file": name,
            **score(image, truth),
            "residual": residual,
            "seconds": seconds,
        }
        append_line(self.folder / "cells.jsonl", entry)
        self.entries[self._key(entry)] = entry

    def score(self, name: str, function: Callable[[Any, Any], float]) -> None:
        """Give every line a further score of its picture and truth, (H, W, 3) uint8; kept in `scores_{name}.jsonl`."""
        known = {e["file"]: e[name] for e in read_lines(self.folder / f"scores_{name}.jsonl")[0]}
        for entry in self.entries.values():
            file = entry["file"]
            if file not in known:
                known[file] = function(read_png(self.folder / file), read_png(self.truth(entry["picture"])))
                append_line(self.folder / f"scores_{name}.jsonl", {"file": file, name: known[file]})
            entry[name] = known[file]

    def tune(self, name: str, strength: Any) -> None:
        self.tuned[name] = strength
        self._write("tuned.json", self.tuned)

    def has_truth(self, picture: str) -> bool:
        return self.truth(picture).is_file()

    def truth(self, picture: str) -> Path:
        return self.folder / "truths" / f"{picture}.png"

    def save_truth(self, picture: str, truth: Tensor) -> None:
        write_png(self.truth(picture), truth)

    def _key(self, entry: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(entry[name] for name in ("task", "method", "picture", "sample"))

    def _read(self, name: str) -> Any:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _write(self, name: str, content: Any) -> None:
        write_whole(self.folder / name, json.dumps(content, indent=1).encode())


def read_png(path: Path) -> Any:
    return np.asarray(PIL.Image.open(path))
