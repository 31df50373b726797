"""Data sets as they are found on disk: pictures by image id, and the splits that tables are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pag_inverse.data.files import check_no_run, is_run
from pag_inverse.data.images import SUFFIXES, is_image, tell_left_out
from pag_inverse.data.lists import Names, read_names

KINDS = ("ffhq", "imagenet", "folder")
FIRST_1K = "first-1k"
_SHOWN = 5


def find_images(kind: str, root: str | Path, leave_out: Path | None = None) -> dict[str, Path]:
    """Find the pictures below a folder, by image id and sorted by it.

    `ffhq` (flat or in thousands folders) and `imagenet` (flat or by class) are known by their file name without its
    suffix, wherever they lie; in any other `folder` an id is the path below the root, `a/b.png` is `a__b`. Links to
    folders are followed. Hidden files and folders do not count, nor do the folder `leave_out` and the results of runs
    below the root; what cannot be read is named in a warning. An unknown kind, a missing folder, a run's folder, no
    pictures and one id twice are ValueErrors.
    """
    root = Path(root)
    if kind not in KINDS:
        raise ValueError(f"unknown dataset {kind!r}; there are {', '.join(KINDS)}")
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    check_no_run(root)
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


def _pictures(root: Path, leave_out: Path | None) -> list[Path]:
    """The image files below a folder, through links to folders; each real folder is visited once."""
    visited = set() if leave_out is None else {leave_out.resolve()}
    found: list[Path] = []
    unread: list[Path] = []
    results: list[Path] = []
    waiting = [root]
    while waiting:
        here = waiting.pop()
        if here.resolve() in visited:
            continue
        visited.add(here.resolve())
        try:
            there = sorted(path for path in here.iterdir() if not path.name.startswith("."))
            folders = [path for path in there if path.is_dir()]
            files = [path for path in there if is_image(path) and not path.is_dir()]
            readable = {path for path in files if path.is_file()}
        except OSError:
            unread.append(here)
            continue
        skipped = [path for path in folders if _holds_results(path)]
        results += skipped
        # Links last: a folder is known by its own name rather than by another that links to it.
        waiting[:0] = [path for path in folders if path.is_symlink() and path not in skipped]
        waiting += [path for path in reversed(folders) if not path.is_symlink() and path not in skipped]
        found += [path for path in files if path in readable]
        unread += [path for path in files if path not in readable]
    tell_left_out(results, "it holds the results of a run")
    tell_left_out(unread, "it cannot be read")
    return found


def _holds_results(folder: Path) -> bool:
    """Whether a folder is that of a run, or of an evaluation: the runs' own, and `truths` or `measurements` beside."""
    if is_run(folder) or _is_of_evaluation(folder):
        return True
    below = {name: folder / name for name in ("truths", "measurements")}
    try:
        if any(_is_of_evaluation(path) for path in below.values()):
            return True
        return any(path.is_dir() for path in below.values()) and any(is_run(path) for path in folder.iterdir())
    except OSError:
        return False


def _is_of_evaluation(folder: Path) -> bool:
    """Whether the pictures in a folder are an evaluation's: they lie in folders named by a hash."""
    depth = {"truths": "*", "measurements": "*/*"}.get(folder.name)
    return depth is not None and any(re.fullmatch("[0-9a-f]{8}", path.name) for path in folder.glob(depth))


def _positions(ids: list[str], start: int, stop: int) -> list[str]:
    if not start < stop <= len(ids):
        raise ValueError(f"split {start}:{stop}: there are {len(ids)} images; START:STOP lies within 0:{len(ids)}")
    return ids[start:stop]
