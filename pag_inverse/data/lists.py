"""Lists of file names as editors, spreadsheets and other systems write them."""

from __future__ import annotations

import csv
import logging
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from pag_inverse.data.images import SUFFIXES
from pag_inverse.settings.files import read_bytes

_LOG = logging.getLogger(__name__)
_TITLES = {"file", "filename", "files", "name", "image", "images", "imagename", "img", "id", "path", "picture", "photo",
           "datei", "dateiname", "bild"}  # fmt: skip
LIMIT, LINE_LIMIT = 2**24, 2**16  # bytes of a list, characters of a line
_SAMPLE = 2**17  # characters of the lines by which the columns are chosen
_MISSES, _DEEPEST = 5000, 32  # lines without an image that are taken apart; folders of a path
_HASH = re.compile(r"\\?[0-9a-fA-F]{32,128} [ *](.+)")  # as md5sum and sha256sum write it
_ENDS = re.compile(rf"(?:{'|'.join(re.escape(end) for end in sorted(SUFFIXES))})(?=\s|$)", re.IGNORECASE)


class Names:
    """The images of a data set by the names that a list may give them."""

    def __init__(self, images: Mapping[str, Path]) -> None:
        self._images = images
        self._plain = all(path.stem == image_id for image_id, path in images.items())
        # Systems differ in how they spell an umlaut: one letter, or a letter and a mark.
        self._spelled: dict[str, list[str]] = {}
        self._ends: dict[str, int] = {}
        for image_id in images:
            self._spelled.setdefault(unicodedata.normalize("NFC", image_id), []).append(image_id)
            end = image_id.rpartition("__")[2]
            self._ends[end] = self._ends.get(end, 0) + 1

    def find(self, name: str) -> str | None:
        """The id of a file name, with or without suffix and folders; None where it is none.

        Of a path, the longest end that is an id counts. ValueError where two ids differ in their spelling alone.
        """
        name = name.strip(" \t\"'")
        plain = _without_suffix(name)
        found = self._get(plain) or (self._get(name) if plain != name else None)
        return found or (self._find_path(plain) if "/" in name or "\\" in name else None)

    def _get(self, name: str) -> str | None:
        if name in self._images:
            return name
        if name.isascii():
            return None
        found = self._spelled.get(unicodedata.normalize("NFC", name), [])
        if len(found) > 1:
            raise ValueError(f"{name!r} is spelled in {len(found)} ways (NFC and NFD) in the data set; rename one")
        return found[0] if found else None

    def _find_path(self, plain: str) -> str | None:
        parts = [part for part in re.split(r"[/\\]", plain) if part not in ("", ".")]
        if found := self._get("__".join(parts)):
            return found
        parts = parts[-_DEEPEST:]
        for start in range(1, len(parts)):
            if found := self._get("__".join(parts[start:])):
                return found if start < len(parts) - 1 or self._is_sure(found, parts[-2]) else None
        return None

    def _is_sure(self, image_id: str, folder: str) -> bool:
        """Whether a file's name alone tells the image, or the folder that is named is the one it lies in."""
        alone = self._plain and self._ends.get(image_id, 1) == 1
        return alone or self._images[image_id].parent.name == folder


def read_names(path: Path, names: Names, known: str) -> list[str]:
    """The ids that a list holds, one a line; a line that names no image stays as the name that it seems to give.

    UTF-8, UTF-16 and UTF-32 with or without a mark, or a Windows code page; any end of line; quotes; commas,
    semicolons, tabs or blanks with more columns, one of which is chosen for the whole list; a line of titles; the
    hashes of sha256sum; lines that begin with #. Without titles, each cell that ends as a picture does counts.
    ValueError, which says what else is `known`, for a file that is no text, an empty list, lines beyond LINE_LIMIT,
    and columns of which two may be meant.
    """
    try:
        lines, separator = _lines(_decode(read_bytes(path, LIMIT)), names)
        if not lines:
            raise ValueError("the list is empty")
        return _ids(lines, names, [separator] if separator else [",", ";", "\t", ""])
    except ValueError as error:
        raise ValueError(f"split {path}: cannot be read as a list ({error}); there are {known}") from error


def _decode(content: bytes) -> str:
    """The text of a file in the encoding that it seems to have."""
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encodings = ["utf-32"]
    elif content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in content:
        encodings = ["utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text and _is_likely(text, content):
            return text
    raise ValueError("not a text")


def _is_likely(text: str, content: bytes) -> bool:
    """Whether wide characters without a mark are Latin ones, as in names of files; the wrong order gives others."""
    return b"\0" not in content or 2 * sum(char < "\u0250" for char in text) >= len(text)


def _lines(text: str, names: Names) -> tuple[list[str], str]:
    """The lines that may name images, each once, and the separator that a first line `sep=;` tells."""
    lines = [_bare(line.strip(" \t")) for line in re.split(r"[\r\n]", text.rstrip("\x1a"))]
    if len(max(lines, key=len)) > LINE_LIMIT:
        raise ValueError(f"a line has more than {LINE_LIMIT} characters; give one name a line")
    separator = ""
    if told := re.fullmatch(r'"?sep=(.|)"?', lines[0]):
        separator, lines = told[1] or "\t", lines[1:]
    return [
        line for line in dict.fromkeys(lines) if line and (line[0] != "#" or names.find(line) is not None)
    ], separator


def _ids(lines: Sequence[str], names: Names, separators: Sequence[str]) -> list[str]:
    """The id of each line that is a name as a whole, and those that the table of the others holds."""
    found: list[str] = []
    others: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        whole = names.find(line) if number == 0 or len(others) <= _MISSES or line in names._images else None
        if whole is None:
            others.append((number, line))
        else:
            found.append(whole)
    if not others:
        return found
    sample = _sample([line for _, line in others])
    separator = max(separators, key=lambda sep: sum(_names_some(_cells(line, sep, names), names) for line in sample))
    return found + _Table(others, separator, names, more=bool(found)).ids()


class _Table:
    """The lines that are no name as a whole, in columns."""

    def __init__(self, lines: Sequence[tuple[int, str]], separator: str, names: Names, *, more: bool) -> None:
        self.names, self.separator = names, separator
        self.lines = [line for _, line in lines]
        self.titles = self._titles(first=lines[0][0] == 0, more=more)
        if self.titles:
            self.lines = self.lines[1:]
        self.column = self._column([self._cells(line) for line in _sample(self.lines)])

    def _cells(self, line: str) -> list[str]:
        return _cells(line, self.separator, self.names)

    def _titles(self, *, first: bool, more: bool) -> list[str]:
        """The cells of the first line where they name no image and the following lines do."""
        cells = self._cells(self.lines[0])
        if not first or _names_some(cells, self.names) or any(map(_is_picture, cells)):
            return []
        rest = _sample(self.lines[1:])
        if not more and not any(_names_some(self._cells(line), self.names) for line in rest):
            return []
        if not any(map(_is_title, cells)):
            _LOG.warning("the first line of the list, %r, is taken for titles: it names no image", self.lines[0][:60])
        return cells

    def _column(self, rows: Sequence[Sequence[str]]) -> int:
        """The column in which most lines name images; those of file names and those with a title count more."""
        scores: list[int] = []
        for column in range(max((len(row) for row in rows), default=0)):
            cells = [row[column] for row in rows if column < len(row)]
            hits = sum(self.names.find(cell) is not None for cell in cells) if cells else 0
            named = 2 * sum(map(_is_picture, cells)) >= len(cells)
            titled = column < len(self.titles) and _is_title(self.titles[column])
            scores.append(hits * (4 if named else 2 if titled else 1))
            if column > 50 and not hits:  # no table of names has more columns
                break
        best = max(scores, default=0)
        unclear = scores.count(best) > 1 and (self.titles or not any(_is_picture(cell) for row in rows for cell in row))
        if best and unclear:
            raise ValueError(f"line {self.lines[0][:60]!r} may name several images; give one name a line, or titles")
        return scores.index(best) if best else 0

    def ids(self) -> list[str]:
        """The ids, or names of images that are not there, of each line."""
        if len(self.lines) > _MISSES:  # the message is about the first of them; to read all would take minutes
            near = [name for line in self.lines[:_MISSES] for name in self._of(line)]
            if any(name not in self.names._images for name in near):
                return near + self.lines[_MISSES:]
        return [name for line in self.lines for name in self._of(line)]

    def _of(self, line: str) -> list[str]:
        cells = self._cells(line)
        wanted = [] if self.titles else [cell for cell in cells if _is_picture(cell)]
        wanted = wanted or [cells[self.column] if self.column < len(cells) and cells[self.column] else line]
        return [self.names.find(cell) or _without_suffix(cell.replace("\\", "/")) for cell in wanted]


def _sample(lines: Sequence[str]) -> list[str]:
    """The first lines, as many as are read soon."""
    lengths = accumulate(len(line) for line in lines[:1000])
    return [line for line, length in zip(lines, lengths, strict=False) if length <= _SAMPLE]


def _bare(line: str) -> str:
    """A line without the hash before its name."""
    hashed = _HASH.fullmatch(line)
    return hashed[1] if hashed else line


def _cells(line: str, separator: str, names: Names) -> list[str]:
    if not separator:
        return [cell.strip("\"'") for cell in _blank_separated(line, names)]
    if '"' in line:
        try:
            return [cell.strip(" \t") for cell in next(csv.reader([line], delimiter=separator), [])]
        except csv.Error:
            pass
    return [cell.strip(" \t\"'") for cell in line.split(separator)]


def _blank_separated(line: str, names: Names) -> Iterator[str]:
    """Cells between blanks; an image's name may hold blanks itself where it ends as a picture does."""
    end = 0
    for match in _ENDS.finditer(line):
        whole, end = line[end : match.end()].strip(), match.end()
        yield from [whole] if names.find(whole) is not None else whole.split()
    yield from line[end:].split()


def _names_some(cells: Sequence[str], names: Names) -> bool:
    return any(names.find(cell) is not None for cell in cells)


def _is_title(cell: str) -> bool:
    return not _TITLES.isdisjoint(re.split(r"[\W\d_]+", cell.lower()))


def _is_picture(name: str) -> bool:
    return f".{name.rpartition('.')[2].lower()}" in SUFFIXES


def _without_suffix(name: str) -> str:
    return name.rpartition(".")[0] if _is_picture(name) else name
