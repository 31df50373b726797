"""Lists of file names as editors, spreadsheets and other systems write them."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from pag_inverse.data.images import SUFFIXES
from pag_inverse.settings.files import read_bytes

_TITLES = {"file", "filename", "file_name", "files", "name", "image", "images", "image_id", "img", "id", "path"}
_LIMIT = 2**28  # bytes of a list


class Names:
    """The images of a data set by the names that a list may give them."""

    def __init__(self, images: Mapping[str, object]) -> None:
        # Systems differ in how they spell an umlaut: one letter, or a letter and a mark.
        self._ids = {unicodedata.normalize("NFC", image_id): image_id for image_id in images}

    def find(self, name: str) -> str | None:
        """The id of a file name, with or without suffix and folder; None where it is none."""
        for guess in _guesses(name):
            if (found := self._ids.get(unicodedata.normalize("NFC", guess))) is not None:
                return found
        return None


def read_names(path: Path, names: Names, known: str) -> list[str]:
    """The ids that a list holds, one a line; a line that names no image stays as the name that it seems to give.

    UTF-8 with or without a mark, UTF-16 with one, or a Windows code page; any end of line; quotes, commas, semicolons
    or tabs with more columns; a line of titles; lines that begin with #. ValueError, which says what else is `known`,
    for a file that is no text or an empty list.
    """
    try:
        rows = [row for row in _rows(_decode(read_bytes(path, _LIMIT))) if row and not row[0].startswith("#")]
    except ValueError as error:
        raise ValueError(f"split {path}: cannot be read as a list ({error}); there are {known}") from error
    if rows and _is_title(rows[0], names):
        rows = rows[1:]
    if not rows:
        raise ValueError(f"split {path}: the list is empty")
    return [_id_of(row, names) for row in rows]


def _decode(content: bytes) -> str:
    """The text of a file in the encoding that it seems to have."""
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not marked and b"\0" in content:
        raise ValueError("not a text")
    for encoding in ["utf-16"] if marked else ["utf-8-sig", "cp1252"]:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError("not a text")


def _rows(text: str) -> Iterator[list[str]]:
    """What each line may name: all of it, then its cells, those that end as a picture does first."""
    for line in text.splitlines():
        whole = line.strip().strip("\"'").strip()
        cells = [cell.strip() for separator in ",;\t" for cell in _cells(line, separator)]
        cells += re.split(r"[\s,;]", whole)[:1]
        if whole:
            yield [whole, *sorted(filter(None, cells), key=lambda cell: not _is_picture(cell))]


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line.strip()], delimiter=separator), []) if separator in line else []
    except csv.Error:
        return line.split(separator)


def _is_title(row: list[str], names: Names) -> bool:
    return not any(names.find(cell) for cell in row) and any(cell.lower() in _TITLES for cell in row)


def _id_of(row: list[str], names: Names) -> str:
    """The id that a line means: all of it where that is an image's name, else the first cell that is one."""
    found = (names.find(cell) for cell in row)
    return next((image_id for image_id in found if image_id is not None), _guesses(row[min(1, len(row) - 1)])[-1])


def _is_picture(name: str) -> bool:
    return Path(name.strip("\"' ")).suffix.lower() in SUFFIXES


def _guesses(name: str) -> list[str]:
    """A listed file as an id: its path below the root, or its last part, without the suffix."""
    path = Path(name.strip("\"' ").replace("\\", "/"))
    plain = path.with_suffix("") if _is_picture(path.name) else path
    parts = [part for part in plain.parts if part not in (".", "/")]
    return ["__".join(parts), plain.name]
