"""Data sets as they are found on disk: pictures by image id, and the splits that tables are made of."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pag_inverse.data.files import MANIFEST, RUN_FORMAT
from pag_inverse.data.images import SUFFIXES, is_image
from pag_inverse.data.lists import Names, read_names
from pag_inverse.settings.files import parse_json, read_bytes

_LOG = logging.getLogger(__name__)
KINDS = ("ffhq", "imagenet", "folder")
FIRST_1K = "first-1k"
_SHOWN = 5


def find_images(kind: str, root: str | Path, leave_out: Path | None = None) -> dict[str, Path]:
    """Find the pictures below a folder, by image id and sorted by it.

    `ffhq` (flat or in thousands folders) and `imagenet` (flat or by class) are known by their file name without its
    suffix, wherever they lie; in any other `folder` an id is the path below the root, `a/b.png` is `a__b`. Links to
    folders are followed. Hidden files and folders do not count, nor do the folder `leave_out` and the results of runs
    below the root. An unknown kind, a missing folder, no pictures and one id twice are ValueErrors.
    """
    root = Path(root)
    if kind not in KINDS:
        raise ValueError(f"unknown dataset {kind!r}; there are {', '.join(KINDS)}")
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(_pictures(root, leave_out)):
        image_id = path.stem if kind != "folder" else "__".join(path.relative_to(root).with_suffix("").parts)
        if image_id in found:
            raise ValueError(f"two pictures are named {image_id}: {found[image_id]} and {path}")
        found[image_id] = path
    if not found:
        raise ValueError(f"{root}: no images in it or below it ({', '.join(sorted(SUFFIXES))})")
    return dict(sorted(found.items()))


def pick_split(kind: str, images: Mapping[str, Path], split: str | None) -> dict[str, Path]:
    """The pictures of a split, sorted by id; all of them where it is None.

    `first-1k`: FFHQ's 00000 to 00999, the first thousand ids of others; `START:STOP`: positions in the sorted list;
    else a text file or a CSV with a file name a line, as `data.lists.read_names` reads it. Names that are not among
    `images` are a ValueError with the first five and their number.
    """
    if split is None:
        return dict(images)
    ids = list(images)
    if split == FIRST_1K:
        wanted = [f"{i:05d}" for i in range(1000)] if kind == "ffhq" else _positions(ids, 0, 1000)
    elif match := re.fullmatch(r"(\d+):(\d+)", split):
        wanted = _positions(ids, int(match[1]), int(match[2]))
    else:
        wanted = read_names(Path(split), Names(images), f"{FIRST_1K}, START:STOP, or a text file of names")
    missing = [name for name in wanted if name not in images]
    if missing:
        shown = [name[:60] for name in missing[:_SHOWN]] + ["..."] * (len(missing) > _SHOWN)
        raise ValueError(f"split {split}: {len(missing)} images are missing: {', '.join(shown)}")
    return {image_id: images[image_id] for image_id in sorted(set(wanted))}


def _pictures(root: Path, leave_out: Path | None) -> Iterator[Path]:
    """The image files below a folder, through links to folders; each folder is visited once."""
    visited = set() if leave_out is None else {leave_out.resolve()}
    for folder, below, names in os.walk(root, followlinks=True):
        here = Path(folder)
        visited.add(here.resolve())
        below[:] = sorted(
            name
            for name in below
            if not name.startswith(".") and (here / name).resolve() not in visited and not _holds_a_run(here / name)
        )
        yield from (here / name for name in names if is_image(here / name) and (here / name).is_file())


def _holds_a_run(folder: Path) -> bool:
    """Whether a folder is that of a run, or of an evaluation's runs: its pictures are results and no input."""
    found = any(_is_manifest(path) for path in (folder / MANIFEST, *folder.glob(f"*/{MANIFEST}")))
    if found:
        _LOG.warning("%s is left out: it holds the results of a run", folder)
    return found


def _is_manifest(path: Path) -> bool:
    try:
        content = parse_json(read_bytes(path, limit=2**31))
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("format") == RUN_FORMAT


def _positions(ids: list[str], start: int, stop: int) -> list[str]:
    if not start < stop <= len(ids):
        raise ValueError(f"split {start}:{stop}: there are {len(ids)} images; START:STOP lies within 0:{len(ids)}")
    return ids[start:stop]
