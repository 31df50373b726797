"""Split lists as editors, spreadsheets and other systems write them."""

from pathlib import Path

import pytest

from pag_inverse.data.datasets import pick_split

IMAGES = {name: Path(f"{name}.png") for name in ("a_1", "b_2", "café", "my photo", "n01__c", "3")}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a_1.png\nb_2.png\n", ["a_1", "b_2"]),
        (b"\xef\xbb\xbfa_1.png\r\nb_2.png\r\n\r\n", ["a_1", "b_2"]),
        (b"a_1\rb_2", ["a_1", "b_2"]),
        ("a_1.png\tx\r\nb_2.png\ty".encode("utf-16"), ["a_1", "b_2"]),
        (b"filename,label\na_1.png,5\nb_2.png,3\n", ["a_1", "b_2"]),
        (b'"file";"class"\n"b_2.JPEG";"3"\n', ["b_2"]),
        (b"0,a_1.png\n3,b_2.png\n", ["a_1", "b_2"]),
        (b"my photo.png,5\n'a_1.png'\n", ["a_1", "my photo"]),
        (b"val\\n01\\c.png 7\n./val/b_2.png 1\n", None),
        (b"n01/c.png\n", ["n01__c"]),
        (b"# a comment\n/data/val/a_1.png\n", ["a_1"]),
        ("café.png\n".encode(), ["café"]),
        ("cafe\u0301.png\n".encode(), ["café"]),
        ("café.png\n".encode("cp1252"), ["café"]),
    ],
)
def test_lists_of_other_systems(tmp_path: Path, content: bytes, wanted: list[str] | None) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    if wanted is None:
        with pytest.raises(ValueError, match="1 images are missing: c"):
            pick_split("folder", IMAGES, str(tmp_path / "list.txt"))
        return
    assert list(pick_split("folder", IMAGES, str(tmp_path / "list.txt"))) == wanted


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n", b"filename\n", b"\x00\x01\x02", b"\xff\xfe\x00"])
def test_a_file_that_is_no_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"list\.txt"):
        pick_split("folder", IMAGES, str(tmp_path / "list.txt"))
