"""Data sets as they are found on disk, and their splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from pag_inverse.data.datasets import find_images, pick_split
from pag_inverse.data.images import list_images


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_ffhq_is_the_same_flat_and_in_thousands_folders(tmp_path: Path) -> None:
    flat = touch(tmp_path / "flat", "00001.png", "00000.png", "01000.png", ".hidden.png", "LICENSE.txt")
    deep = touch(tmp_path / "deep", "00000/00001.jpg", "00000/00000.jpg", "01000/01000.jpg", ".cache/00002.jpg")
    assert list(find_images("ffhq", flat)) == list(find_images("ffhq", deep)) == ["00000", "00001", "01000"]


def test_imagenet_by_class_with_a_list_of_labels(tmp_path: Path) -> None:
    images = find_images("imagenet", touch(tmp_path / "val", "n01/a_2.JPEG", "n02/a_1.JPEG", "n02/a_3.JPEG"))
    (tmp_path / "list.txt").write_text("a_3.JPEG 0\nn01/a_2.JPEG 1\n\n")
    assert list(pick_split("imagenet", images, str(tmp_path / "list.txt"))) == ["a_2", "a_3"]


def test_a_folder_may_hold_one_name_twice_and_a_data_set_may_not(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/x.png", "b/x.png", "y.png")
    images = find_images("folder", root)
    assert list(images) == ["a__x", "b__x", "y"]
    (tmp_path / "list.txt").write_text("b/x.png\n")
    assert list(pick_split("folder", images, str(tmp_path / "list.txt"))) == ["b__x"]
    with pytest.raises(ValueError, match="two pictures are named x"):
        find_images("imagenet", root)


def test_splits(tmp_path: Path) -> None:
    names = [f"{i:05d}" for i in range(1003)]
    images = {name: Path(name) for name in names}
    assert list(pick_split("ffhq", images, None)) == names
    assert list(pick_split("ffhq", images, "first-1k")) == names[:1000]
    assert list(pick_split("folder", images, "5:7")) == ["00005", "00006"]
    for split in ("7:5", "0:1004", "nowhere.txt"):
        with pytest.raises(ValueError, match=r"split .*(START:STOP|first-1k)"):
            pick_split("folder", images, split)
    few = {name: images[name] for name in names if not 10 <= int(name) < 17}
    with pytest.raises(ValueError, match=r"7 images are missing: 00010, 00011, 00012, 00013, 00014, \.\.\."):
        pick_split("ffhq", few, "first-1k")


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        find_images("folder", tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        find_images("folder", tmp_path / "nowhere")


def test_links_to_folders_are_followed_and_may_form_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "val/n01/a_1.png", "store/n02/a_2.png")
    (tmp_path / "val" / "n02").symlink_to(tmp_path / "store" / "n02")
    (tmp_path / "val" / "n01" / "up").symlink_to(tmp_path / "val")
    assert list(find_images("imagenet", tmp_path / "val")) == ["a_1", "a_2"]


def test_the_results_of_a_run_are_not_read_as_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = touch(tmp_path, "x.png", "out/truths/x.png", "out/deblur_dps/restorations/x.png", "other/y.png")
    (root / "out" / "deblur_dps" / "manifest.json").write_text('{"format": "pag_inverse run"}')
    (root / "other" / "manifest.json").write_text('{"files": []}')
    assert list(find_images("folder", root)) == ["other__y", "x"]
    assert "out is left out: it holds the results of a run" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfn01/a_1.png\r\nn02/my photo.png\r\n",  # a byte order mark, Windows' line ends, a blank
        b"n01\\a_1.png\nn02\\my photo.png\n",
        b"a_1.png,17\nmy photo.png\n",
        b"'a_1.png'\n\n\"my photo\"\n",
    ],
)
def test_lists_as_editors_and_spreadsheets_write_them(tmp_path: Path, content: bytes) -> None:
    images = find_images("imagenet", touch(tmp_path / "val", "n01/a_1.png", "n02/my photo.png", "n02/other.png"))
    (tmp_path / "list.txt").write_bytes(content)
    assert list(pick_split("imagenet", images, str(tmp_path / "list.txt"))) == ["a_1", "my photo"]


RUN = '{"format": "pag_inverse run"}'


def test_what_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "x.png")
    for number in range(8):
        (tmp_path / f"gone{number}.png").symlink_to(tmp_path / "nowhere")
    for read in (lambda: find_images("folder", tmp_path), lambda: list_images(tmp_path)):
        caplog.clear()
        assert len(read()) == 1
        assert "gone0.png is left out" in caplog.text and "3 more are left out" in caplog.text


def test_a_class_loses_the_folder_of_a_run_alone(tmp_path: Path) -> None:
    touch(tmp_path, "n01/a.png", "n01/out/b.png", "n02/out/c.png", "n02/rank-000.jsonl")
    (tmp_path / "n01" / "out" / "manifest.json").write_text(RUN)
    assert list(find_images("folder", tmp_path)) == ["n01__a"]


@pytest.mark.parametrize("left", ["truths/0123abcd/x.png", "measurements/deblur/0123abcd/x.png"])
def test_the_rest_of_an_evaluation_is_no_data(tmp_path: Path, left: str) -> None:
    touch(tmp_path, "a.png", f"out/{left}", "truths/y.png")
    assert list(find_images("folder", tmp_path)) == ["a", "truths__y"]


def test_an_alias_in_the_same_root_adds_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "real/deep/a.png")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    (tmp_path / "b").symlink_to(tmp_path / "real" / "deep")
    assert list(find_images("folder", tmp_path)) == ["real__deep__a"]


@pytest.mark.parametrize("name, content", [("manifest.json", RUN), ("rank-000.jsonl", "")])
def test_the_folder_of_a_run_is_no_folder_of_pictures(tmp_path: Path, name: str, content: str) -> None:
    touch(tmp_path, "x.png")
    (tmp_path / name).write_text(content)
    for read in (lambda: find_images("folder", tmp_path), lambda: list_images(tmp_path)):
        with pytest.raises(ValueError, match="name a folder of pictures"):
            read()
