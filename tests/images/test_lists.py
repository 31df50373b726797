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
        (b"val\\n01\\c.png 7\n./val/b_2.png 1\n", ["b_2", "n01__c"]),
        (b"n01/c.png\n", ["n01__c"]),
        (b"# a comment\n/data/val/a_1.png\n", ["a_1"]),
        ("café.png\n".encode(), ["café"]),
        ("cafe\u0301.png\n".encode(), ["café"]),
        ("café.png\n".encode("cp1252"), ["café"]),
    ],
)
def test_lists_of_other_systems(tmp_path: Path, content: bytes, wanted: list[str]) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    assert list(pick_split("folder", IMAGES, str(tmp_path / "list.txt"))) == wanted


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n", b"filename\n", b"\x00\x01\x02", b"\xff\xfe\x00"])
def test_a_file_that_is_no_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"list\.txt"):
        pick_split("folder", IMAGES, str(tmp_path / "list.txt"))


DEEP = {"a": Path("a.png"), "b": Path("b.png"), "sub__a": Path("sub/a.png"), "#1": Path("#1.png"), "0": Path("0.png")}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a.png,b.png\n", ["a", "b"]),
        (b"a.png b.png\n", ["a", "b"]),
        (b"/data/root/sub/a.png\n", ["sub__a"]),
        (b"C:\\data\\root\\sub\\a.png,3\n", ["sub__a"]),
        (b"#1.png\n# b.png\n", ["#1"]),
        (b",id\n0,a\n1,b\n", ["a", "b"]),
        (b"sep=;\nimage_name;x\na.png;0\n", ["a"]),
        (b"Dateiname\na\n", ["a"]),
        (b"titel,x\na,3\nb,4\n", ["a", "b"]),
        (b"d41d8cd98f00b204e9800998ecf8427e  a.png\nd41d8cd98f00b204e9800998ecf8427e *b.png\n", ["a", "b"]),
        (b"a.png\r\nb.png\r\n\x1a", ["a", "b"]),
        ("a.png\nb.png\n".encode("utf-16-le"), ["a", "b"]),
        ("a.png\nb.png\n".encode("utf-32"), ["a", "b"]),
    ],
)
def test_lists_mean_one_image_a_name(tmp_path: Path, content: bytes, wanted: list[str]) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    assert list(pick_split("folder", DEEP, str(tmp_path / "list.txt"))) == wanted


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"a, b\n", "may name several images"),
        (b"/data/root/other/a.png\n", "1 images are missing"),
        (b"a.png,gone.png\n", "1 images are missing: gone"),
        (b"a" * 2**17, "more than 65536 characters"),
        (b"a\n" * 2**23 + b"a", "at most 17 MB"),
    ],
)
def test_a_line_that_may_mean_another_image_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=named):
        pick_split("folder", DEEP, str(tmp_path / "list.txt"))


@pytest.mark.parametrize("name", ['a "x" b', "a\u2028b", "a\x85b"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    quoted = name.replace('"', '""')
    (tmp_path / "list.txt").write_bytes(f'"{quoted}.png"\n'.encode())
    assert list(pick_split("folder", {name: Path(f"{name}.png")}, str(tmp_path / "list.txt"))) == [name]


def test_two_spellings_of_one_name(tmp_path: Path) -> None:
    two = {name: Path(f"{name}.png") for name in ("caf\u00e9", "cafe\u0301")}
    for name in two:
        (tmp_path / "list.txt").write_text(name, encoding="utf-8")
        assert list(pick_split("folder", two, str(tmp_path / "list.txt"))) == [name]
