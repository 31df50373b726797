"""Files that may be anything: what is read, and what is refused before it is opened or inflated."""

import os

import pytest

from pag_inverse.settings.files import check_file, parse_json, read_bytes, read_json, read_text


def test_only_regular_files_of_a_stated_size_are_read(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    os.symlink(file, tmp_path / "link")
    assert read_bytes(tmp_path / "link") == b"12345"
    assert check_file(file) == 5
    with pytest.raises(ValueError, match="at most"):
        read_bytes(file, limit=4)


def test_pipes_devices_folders_and_impossible_paths_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, word in (
        (tmp_path / "pipe", "pipe"),
        ("/dev/zero", "device"),
        (tmp_path, "folder"),
        (tmp_path / "none", "no such file"),
        (tmp_path / ("x" * 300), "too long"),
        ("a\0b", "null"),
    ):
        with pytest.raises(ValueError, match=word):
            read_bytes(path)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        '{"a": Infinity}',
        "[-Infinity]",
        "1e999",
        '{"a": 1, "a": 2}',
        "[" * 100000,
        "",
        "nul",
        "1" * 5000,
        "{1: 2}",
    ],
)
def test_json_is_strict(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_settings_of_schedulers_may_hold_infinities():
    assert parse_json('{"lambda_min_clipped": -Infinity}', infinite=True) == {"lambda_min_clipped": float("-inf")}


def test_a_file_of_settings_is_an_object_in_utf8(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert read_json(file) == {"a": 1}
    for content, word in ((b"[1]", "no table"), (b"\xff\xfe", "UTF-8"), (b"{", "no JSON")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=word):
            read_json(file)
    assert read_text(file) == "{"
