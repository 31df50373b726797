"""What a run of `sample` leaves behind: its pictures, a grid of them, and ADM's .npz."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pag_inverse.data.files import TEMPORARY, write_whole
from pag_inverse.data.images import Picture, png_bytes, read_picture
from pag_inverse.storage.entries import Entry, ItemEntry, Text
from pag_inverse.storage.run_store import RunStore

GRID, NPZ = "grid.png", "samples.npz"
GRID_LARGEST, GRID_COLUMNS, GRID_SIDE = 64, 8, 256  # pictures, those of a row, and pixels of one
_GAP = 2  # pixels of white between two


class SampleEntry(ItemEntry):
    """A picture that was sampled: its class or prompt, and the seconds that it took."""

    label: int | None
    prompt: Text | None
    seconds: float


def sampled(store: RunStore, names: Iterable[str]) -> dict[str, Entry]:
    """The entries of those pictures of a run that did not fail, in the order of their names."""
    entries = store.entries()
    return {name: entries[name] for name in names if name in entries and "error" not in entries[name]}


def pictures(store: RunStore, entries: Sequence[Entry]) -> Iterator[Picture]:
    """The pictures (H, W, 3) of some entries, read one by one."""
    return (read_picture(store.path(entry, "sample")) for entry in entries)


def write_grid(store: RunStore, entries: Sequence[Entry]) -> Path:
    """The first 64 pictures in one PNG; of several prompts, a row for each of the first eight."""
    tiles = [_shown(tile) for tile in pictures(store, grid_entries(entries))]
    columns = _columns([entry["prompt"] for entry in grid_entries(entries)])
    path = store.folder / GRID
    write_whole(path, png_bytes(grid(tiles, columns)))
    return path


def grid_entries(entries: Sequence[Entry]) -> list[Entry]:
    """The pictures that a grid shows."""
    by_prompt: dict[Any, list[Entry]] = {}
    for entry in entries:
        by_prompt.setdefault(entry["prompt"], []).append(entry)
    if len(by_prompt) == 1:
        return list(entries[:GRID_LARGEST])
    rows = list(by_prompt.values())[: GRID_LARGEST // GRID_COLUMNS]
    columns = min(GRID_COLUMNS, *map(len, rows))
    return [entry for row in rows for entry in row[:columns]]


def grid(tiles: Sequence[Picture], columns: int) -> Picture:
    """Pictures of one size side by side, `columns` in a row, on white."""
    height, width = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, dtype=np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (height + _GAP), column * (width + _GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def write_npz(store: RunStore, entries: Sequence[Entry]) -> Path:
    """ADM's samples.npz: arr_0 the pictures (N, H, W, 3), uint8; arr_1 the classes (N,), where there are any.

    The field's evaluators read it. The pictures are written one by one: many of them do not fit into memory.
    """
    path, temporary = store.folder / NPZ, store.folder / f"{TEMPORARY}{NPZ}.tmp"
    shape = (len(entries), *next(pictures(store, entries)).shape)
    labels = [entry["label"] for entry in entries]
    try:
        with zipfile.ZipFile(temporary, "w", allowZip64=True) as file:
            with file.open("arr_0.npy", "w", force_zip64=True) as part:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(part, header)
                for picture in pictures(store, entries):
                    part.write(picture.tobytes())
            if None not in labels:
                with file.open("arr_1.npy", "w") as part:
                    np.lib.format.write_array(part, np.array(labels, dtype=np.int64))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _columns(prompts: Sequence[Any]) -> int:
    """The pictures of a row: those of a prompt, or as many as rows, at most eight."""
    if len(set(prompts)) > 1:
        return prompts.count(prompts[0])
    return min(GRID_COLUMNS, math.ceil(math.sqrt(len(prompts))))


def _shown(picture: Picture) -> NDArray[np.uint8]:
    """A picture at most 256 pixels high: larger ones are reduced by averaging blocks."""
    factor = max(1, len(picture) // GRID_SIDE)
    height, width = (side // factor * factor for side in picture.shape[:2])
    blocks = picture[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
