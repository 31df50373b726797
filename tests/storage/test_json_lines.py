"""Files of JSON lines: a line is there whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from pag_inverse.storage.json_lines import append_line, read_lines


def test_a_line_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"image": "a"})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError, match=r"lines\.jsonl"):
            append_line(path, {"image": "b" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    append_line(path, {"image": "c"})
    assert read_lines(path) == ([{"image": "a"}, {"image": "c"}], 0)


def test_lines_survive_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"a": 2, "b')
    append_line(path, {"a": 3})
    assert read_lines(path) == ([{"a": 1}, {"a": 3}], 1)
    assert json.loads(path.read_text().splitlines()[0]) == {"a": 1}
    assert read_lines(tmp_path / "none.jsonl") == ([], 0)


def test_a_reader_waits_for_a_line_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, half = tmp_path / "lines.jsonl", threading.Event()

    def write_slowly(descriptor: int, content: bytes) -> None:
        os.write(descriptor, content[:5])
        half.set()
        time.sleep(0.2)
        os.write(descriptor, content[5:])

    monkeypatch.setattr("pag_inverse.storage.json_lines.write_all", write_slowly)
    writer = threading.Thread(target=append_line, args=(path, {"a": 1}))
    writer.start()
    assert half.wait(10)
    assert read_lines(path) == ([{"a": 1}], 0)
    writer.join()
