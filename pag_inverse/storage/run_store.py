"""One resumable run on disk: of solve, evaluate, search, ablation and comparison alike.

    FOLDER/manifest.json    what the run is (kind, settings, versions); once finalised, a summary of every item
    FOLDER/rank-NNN.jsonl   the record: a line for each finished item of process NNN, with the SHA-256 of its files
    FOLDER/...              the files

An item's files are on the disk before its line: an interruption costs that item and nothing else. An item is finished
when its line is whole and its files have the hashes that the line names.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

from pag_inverse.data.files import MANIFEST, remove_leftovers, write_whole
from pag_inverse.runtime.failures import Interrupted
from pag_inverse.storage.entries import (
    Entry,
    ItemEntry,
    Model,
    Survey,
    drop_damaged,
    is_of_another_input,
    latest,
    read_entries,
    valid_lines,
)
from pag_inverse.storage.files import differences, file_sha256, remove_files, sha256, wrong_file
from pag_inverse.storage.json_lines import append_line, read_lines, strict
from pag_inverse.storage.lock import lock, lock_path, refuse_writers
from pag_inverse.storage.manifest import read_manifest, write_manifest
from pag_inverse.storage.places import check_names, check_places, check_writable

REMEDY = "give another --output, or --overwrite"
_OVERWRITTEN = ("solve", "evaluate", "sample")  # the commands that have --overwrite
Files = Mapping[str, tuple[str, bytes]]  # kind -> (path relative to the store's root, content)


class RunStore:
    """A run's folder; one writer for each rank, any number of readers.

    `settings` is everything that decides the results, inputs by the hash of their content; those in `told` are told
    and decide nothing, such as paths. `item` is what the run makes, in its manifest and lines; `entry` is the shape of
    its lines. Paths of files are relative to `root`, by default the folder itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str,
        settings: Mapping[str, Any],
        rank: int = 0,
        world: int = 1,
        item: str = "image",
        root: Path | None = None,
        entry: type[ItemEntry] = ItemEntry,
        told: Collection[str] = (),
    ) -> None:
        self.folder, self.root = folder.absolute(), (root or folder).absolute()
        self.kind, self.settings, self.item = kind, strict(settings), item
        self.rank, self.world = rank, world
        self.entry, self.told = entry, frozenset(told)
        self._opening = self._dropped = 0
        self._lock: FileLock | None = None

    @classmethod
    def of(cls, folder: Path, entry: type[ItemEntry] = ItemEntry) -> RunStore:
        """The run that a folder holds, for reading or further lines; ValueError where it holds none."""
        found = read_manifest(folder)
        if found is None:
            raise ValueError(f"{folder}: no run in it, or one with a damaged {MANIFEST}")
        return cls(
            folder.resolve(),
            kind=found["kind"],
            settings=found["settings"],
            item=found["item"],
            root=(folder / found["root"]).resolve(),
            entry=entry,
        )

    @property
    def remedy(self) -> str:
        """What to do about a folder that holds another run."""
        return REMEDY if self.kind in _OVERWRITTEN else "give another --output"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    # Opening and closing

    def check(
        self, overwrite: bool = False, inputs: Mapping[str, str] | None = None, names: Iterable[str] = ()
    ) -> None:
        """ValueError unless this run can start or go on here; writes nothing.

        Refused are a file in the folder's place, a folder of something else, `names` of files that are too long and,
        unless `overwrite` says to start anew, a run with other settings or made of other inputs: `inputs` holds the
        SHA-256 of each item's input, which is compared with `input_sha256` of its entry. The message names what
        differs.
        """
        check_writable(self.folder)
        check_places([self.folder / MANIFEST, lock_path(self.folder, self.rank)])
        if self.rank == 0 and self._lock is None:
            refuse_writers(self.folder, range(0))
        check_names(str(self.root / name) for name in names)
        there = self._there()
        if there is None or overwrite:
            return
        if not there:
            raise ValueError(f"{self.folder} holds a run without a readable {MANIFEST}; --overwrite starts anew")
        mine = {"kind": self.kind, **self._deciding(self.settings)}
        if other := differences({"kind": there["kind"], **self._deciding(there["settings"])}, mine):
            raise ValueError(f"{self.folder} holds a run with other settings: {'; '.join(other)}; {self.remedy}")
        if changed := self._changed_inputs(inputs or {}):
            named = f"{len(changed)} changed ({', '.join(changed[:3])})"
            raise ValueError(f"{self.folder} holds a run of other inputs: {named}; {self.remedy}")

    def open(self, overwrite: bool = False) -> RunStore:
        """Take the lock and, as rank 0, write the manifest; ValueError where another run is at work here."""
        self.hold()
        try:
            if self.rank == 0:
                self.check(overwrite)
                if overwrite:
                    self.clear()
                remove_leftovers(self.root)
                self._dropped = sum(drop_damaged(path, self.item) for path in self._records())
                self.finalise()
        except BaseException:
            self.close()
            raise
        return self

    def hold(self) -> RunStore:
        """Take the lock alone, for further lines of a run that is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock(lock_path(self.folder, self.rank))
        try:
            if self.rank == 0:
                refuse_writers(self.folder, range(self.world))
            self._opening = 1 + max((entry.get("opening", 0) for entry in self.entries().values()), default=0)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Summarise what is finished, also after an interruption, and give the lock back.

        An OSError, such as that of a full disk, becomes Interrupted.
        """
        try:
            if self.rank == 0:
                self.finalise()
        except OSError as full:
            error = error or full
        finally:
            self.close()
        if isinstance(error, OSError) and not isinstance(error, Interrupted):
            raise Interrupted(f"{error}; what is finished is kept, and the same command goes on") from error

    def clear(self) -> None:
        """Forget everything that was finished, and remove the run's own files: old results must not pass for new ones.

        Files beside the folder, which other runs may share, stay, as does what is no longer as it was written.
        """
        for entry in self.entries().values():
            remove_files(entry, self.root, self.folder)
        names = (f"{kind}-[0-9][0-9][0-9].jsonl" for kind in ("rank", "scores", "lpips"))
        for path in [*(path for name in names for path in self.folder.glob(name)), self.folder / MANIFEST]:
            path.unlink(missing_ok=True)

    # Writing

    def finish(self, key: str, entry: Mapping[str, Any], files: Files | None = None) -> None:
        """Write an item's files, then its line.

        An entry with `error` says that the item failed; with `retry` beside it the item is tried again by a later run.
        A file that is there already with the same content is left as it is.
        """
        described = {}
        for kind, (name, content) in (files or {}).items():
            path, digest = self.root / name, sha256(content)
            if file_sha256(path) != digest:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, content)
            described[kind] = {"path": name, "sha256": digest}
        line = {self.item: key, **entry, "files": described, "opening": self._opening, "time": time.time()}
        self.append("rank", line)

    def append(self, name: str, line: Mapping[str, Any]) -> None:
        """Add a line to this rank's `NAME-NNN.jsonl`, such as scores that were computed from saved files."""
        append_line(self.folder / f"{name}-{self.rank:03d}.jsonl", line)

    def forget(self, name: str) -> None:
        """Remove the lines of all ranks' `NAME-NNN.jsonl`."""
        for path in self.folder.glob(f"{name}-*.jsonl"):
            path.unlink()

    def finalise(self) -> None:
        """Write the manifest with a summary of every item: its entry, and the paths of its files by kind."""
        write_manifest(
            self.folder,
            kind=self.kind,
            item=self.item,
            root=self.root,
            settings=self.settings,
            entries=self.entries(),
        )

    # Reading

    def survey(self, keys: Iterable[str], inputs: Mapping[str, str] | None = None) -> Survey:
        """Where these items stand; what is damaged or gone is pending again, as is what failed with another input."""
        entries, damaged = self._read()
        damaged += self._dropped
        found = Survey(damaged=[f"{self.name}: {damaged} damaged lines"] if damaged else [])
        for key in keys:
            entry = entries.get(key)
            wrong = wrong_file(entry, self.root) if entry else None
            if wrong:
                found.damaged.append(f"{self.name}: {key}: {wrong}; it is made again")
            changed = entry is not None and is_of_another_input(entry, (inputs or {}).get(key))
            if entry is None or wrong or changed or entry.get("retry"):
                found.pending.append(key)
            elif "error" in entry:
                found.failed[key] = str(entry["error"])
            else:
                found.finished.add(key)
        return found

    def entries(self) -> dict[str, Entry]:
        """The latest line of each item, a finished one before a failed one, sorted by key; files are not looked at."""
        return self._read()[0]

    def failures(self) -> dict[str, str]:
        """The error of each item that failed and was not finished since."""
        return {key: str(entry["error"]) for key, entry in self.entries().items() if "error" in entry}

    def lines(self, name: str, kind: type[Model]) -> list[Entry]:
        """The lines of all ranks' `NAME-NNN.jsonl` that have the shape of `kind`."""
        return [
            line
            for path in sorted(self.folder.glob(f"{name}-*.jsonl"))
            for line in valid_lines(read_lines(path)[0], kind)
        ]

    def path(self, entry: Mapping[str, Any], kind: str) -> Path:
        """Where the file `kind` of an entry lies."""
        return self.root / str(entry["files"][kind]["path"])

    def _read(self) -> tuple[dict[str, Entry], int]:
        """The entries, and how many lines were damaged."""
        records = [read_entries(path, self.item, self.entry) for path in self._records()]
        return latest((entries for entries, _ in records), self.item), sum(damaged for _, damaged in records)

    def _records(self) -> list[Path]:
        return sorted(self.folder.glob("rank-[0-9][0-9][0-9].jsonl"))

    def _deciding(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name not in self.told}

    def _there(self) -> Entry | None:
        """The manifest; None where the folder is new, {} where a run's manifest is damaged; ValueError if foreign."""
        if found := read_manifest(self.folder):
            return found
        if any(read_entries(path, self.item, ItemEntry)[0] for path in self._records()):
            return {}
        if self.folder.exists() and any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise ValueError(f"{self.folder} is not empty and holds no run; give another --output")
        return None

    def _changed_inputs(self, inputs: Mapping[str, str]) -> list[str]:
        finished = {key: entry for key, entry in self.entries().items() if "error" not in entry}
        return [key for key, entry in finished.items() if is_of_another_input(entry, inputs.get(key))]
