"""The folder of a run: what may lie in it, one writer, and left-overs of a run that was killed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from pag_inverse.data.files import TEMPORARY, remove_leftovers, write_whole
from pag_inverse.storage.files import file_sha256, sha256
from pag_inverse.storage.json_lines import read_lines
from pag_inverse.storage.lock import lock
from pag_inverse.storage.places import check_writable

STATE, LOG, CARD, LOCK = "state.pt", "log.jsonl", "README.md", ".train.lock"
FOLDERS = ("unet", "vae", "scheduler")
_PREVIEW = re.compile(r"preview_\d{7,}\.png")
_FILES = re.compile(rf"{'|'.join(map(re.escape, (STATE, LOG, CARD, LOCK)))}|{_PREVIEW.pattern}")
# Without a state: a lock, a log and what a kill left of the first state, of earlier versions too.
_BEFORE_STATE = re.compile(rf"{re.escape(LOCK)}|{re.escape(LOG)}|{re.escape(TEMPORARY)}.*\.tmp|state\.tmp")


def check_folder(folder: Path) -> None:
    """ValueError unless a run can start or go on here; writes nothing.

    Refused are a file in the folder's place, a place that cannot be written, a folder with files that are not a
    training run's, and something else, such as a pipe or a link, in the place of a file that the run writes.
    """
    check_writable(folder)
    if not folder.is_dir():
        return
    names = sorted(os.listdir(folder))
    foreign = [name for name in names if not _BEFORE_STATE.fullmatch(name)]
    if STATE not in names and (foreign or not _is_log(folder / LOG)):
        raise ValueError(
            f"{folder} has files in it that are not a training run's ({(foreign or [LOG])[0]}); choose another folder"
        )
    for name in names:
        if _FILES.fullmatch(name):
            _check(folder / name, stat.S_ISREG, "a file")
        elif name in FOLDERS:
            _check_part(folder / name)


def _check_part(folder: Path) -> None:
    """ValueError unless weights and settings can be written into a folder of the run's own."""
    _check(folder, stat.S_ISDIR, "a folder")
    check_writable(folder)
    for path in folder.iterdir():
        if path.suffix in (".json", ".safetensors"):
            _check(path, stat.S_ISREG, "a file")


def hold(folder: Path) -> FileLock:
    """Make the folder, take its lock and remove what a kill has left; ValueError where another run is at work here."""
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder / LOCK)
    remove_leftovers(folder)
    return held


def write_changed(path: Path, content: bytes) -> None:
    """Write a file whole, with its folder, unless it has this content already."""
    if file_sha256(path) != sha256(content):
        path.parent.mkdir(exist_ok=True)
        write_whole(path, content)


def is_preview(path: Path) -> bool:
    """Whether a picture is one that a training run has drawn into its folder."""
    drawn = _PREVIEW.fullmatch(path.name) is not None
    return drawn and (path.parent / STATE).is_file() and (path.parent / LOG).is_file()


def _is_log(path: Path) -> bool:
    """Whether a log is a run's, or there is none."""
    return not path.exists() or (path.is_file() and all("step" in entry for entry in read_lines(path)[0]))


def _check(path: Path, is_right: Callable[[int], bool], kind: str) -> None:
    if not is_right(os.lstat(path).st_mode):
        raise ValueError(f"{path} is not {kind}, as a training run has there; remove it, or choose another folder")
