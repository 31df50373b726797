"""What an evaluation saves: pictures, and one line of JSON for each finished image, so that nothing is computed twice.

A root holds `truths` and `measurements`, shared by its cells, and a folder a cell (one task, solver and guidance) with
`settings.json`, `restorations` and a `rank-NNN.jsonl` of each process. An image is finished when its line is whole and
the files it names are there with the hashes it names.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from pag_inverse.data.images import Picture, write_whole
from pag_inverse.storage.json_lines import append_line, read_lines

SETTINGS = "settings.json"


class SavedCell:
    """One cell of an evaluation on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder.parent

    @property
    def name(self) -> str:
        return self.folder.name

    def settings(self) -> dict[str, Any] | None:
        """The settings it was made with; None where there are none, or damaged ones."""
        try:
            found = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def check(self, settings: Mapping[str, Any]) -> None:
        """ValueError that names the differences where the folder holds other settings."""
        old, new = self.settings(), json.loads(json.dumps(settings))
        if old is None:
            if list(self.folder.glob("rank-*.jsonl")):
                raise ValueError(f"{self.folder} holds images but no readable {SETTINGS}; --overwrite starts anew")
            return
        other = differences(old, new)
        if other:
            raise ValueError(
                f"{self.folder} holds a run with other settings: {'; '.join(other)}; "
                "give another --output, or --overwrite"
            )

    def start(self, settings: Mapping[str, Any]) -> None:
        (self.folder / "restorations").mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / SETTINGS, json.dumps(settings, indent=1).encode())

    def clear(self) -> None:
        """Forget what was finished; the pictures are written over in time."""
        for path in [*self.folder.glob("*.jsonl"), self.folder / SETTINGS]:
            path.unlink(missing_ok=True)

    def finish(self, rank: int, entry: Mapping[str, Any], files: Mapping[str, tuple[Path, bytes]]) -> None:
        """Write an image's files, then its line: an interruption in between costs the image, not the run."""
        described = {}
        for kind, (path, content) in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256(content).hexdigest()
            if hash_of(path) != digest:
                write_whole(path, content)
            described[kind] = {"path": path.relative_to(self.root).as_posix(), "sha256": digest}
        append_line(self.folder / f"rank-{rank:03d}.jsonl", {**entry, "files": described, "time": time.time()})

    def entries(self) -> tuple[dict[str, dict[str, Any]], int]:
        """The latest line of each image, sorted by id, a restored one before a failed one; how many were damaged.

        The files are not looked at.
        """
        found: dict[str, dict[str, Any]] = {}
        damaged = 0
        for path in sorted(self.folder.glob("rank-*.jsonl")):
            lines, torn = read_lines(path)
            damaged += torn
            for entry in lines:
                before = found.get(entry.get("image", ""))
                if "image" in entry and (before is None or _rank(entry) >= _rank(before)):
                    found[entry["image"]] = entry
        return dict(sorted(found.items())), damaged

    def sort_out(self, ids: Iterable[str]) -> tuple[set[str], list[str]]:
        """Of these images, those that are finished, and a sentence for each that has a line and is not."""
        entries, damaged = self.entries()
        finished, said = set(), [f"{self.name}: {damaged} damaged lines"] if damaged else []
        for image_id in ids:
            entry = entries.get(image_id)
            if entry is None or entry.get("retry"):
                continue
            wrong = self.wrong_file(entry)
            if wrong is None:
                finished.add(image_id)
            else:
                said.append(f"{self.name}: {image_id}: {wrong}; it is restored again")
        return finished, said

    def wrong_file(self, entry: Mapping[str, Any]) -> str | None:
        """What is wrong with an entry's files; None where they are whole."""
        for file in entry.get("files", {}).values():
            found = hash_of(self.root / file["path"])
            if found != file["sha256"]:
                return f"{file['path']} is {'missing' if found is None else 'damaged'}"
        return None

    def picture(self, entry: Mapping[str, Any], kind: str) -> Picture:
        """A saved picture (H, W, 3), uint8: `truth`, `restoration0`, ..."""
        with PIL.Image.open(self.root / entry["files"][kind]["path"]) as file:
            return np.asarray(file.convert("RGB"))


def find_cells(folder: Path) -> list[SavedCell]:
    """The cells of a root, or the one cell that a folder is; ValueError where it is neither."""
    folder = folder.absolute()
    if (folder / SETTINGS).is_file():
        return [SavedCell(folder)]
    found = [SavedCell(path.parent) for path in sorted(folder.glob(f"*/{SETTINGS}"))]
    if not found:
        raise ValueError(f"{folder}: no evaluation in it")
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What two sets of settings differ in, one text each."""
    keys = sorted(set(old) | set(new))
    return [f"{k} {old.get(k)!r} (now {new.get(k)!r})" for k in keys if old.get(k) != new.get(k)]


def _rank(entry: Mapping[str, Any]) -> tuple[bool, float]:
    return "error" not in entry, float(entry.get("time", 0))


def hash_of(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def png(picture: Picture) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    """An array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()
