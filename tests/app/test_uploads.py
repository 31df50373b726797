"""What a visitor gives: every file that does not do is one line that names it, not its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pag_inverse.app.uploads import (
    Limits,
    bundled,
    kernel_file,
    mask_file,
    painted_hole,
    preview,
    read_upload,
    shown,
)
from pag_inverse.data.arrays import read_mask

LIMITS = Limits(max_side=100, max_upload=0.05)


def paint(height: int = 40, width: int = 60) -> np.ndarray:
    return np.zeros((height, width, 4), np.uint8)


def picture(path: Path, width: int = 60, height: int = 40) -> Path:
    PIL.Image.fromarray(np.full((height, width, 3), 128, np.uint8)).save(path)
    return path


def test_a_picture(tmp_path: Path) -> None:
    assert read_upload(picture(tmp_path / "a.png"), True, False, LIMITS).shape == (40, 60, 3)
    np.save(tmp_path / "y.npy", np.zeros((3, 20, 30), np.float32))
    assert (read_upload(tmp_path / "y.npy", True, False, LIMITS) == 128).all()
    assert preview(np.zeros((100, 2000, 3), np.uint8)).shape[1] == 512


def test_a_large_picture_is_refused_where_it_stays_whole(tmp_path: Path) -> None:
    large = picture(tmp_path / "large.png", width=200)
    assert read_upload(large, False, False, LIMITS).shape == (40, 200, 3)  # a square is cut from it
    for own, whole in ((True, False), (False, True)):
        with pytest.raises(ValueError, match=r"^large.png has 200 x 40 pixels; this page takes at most 100 a side"):
            read_upload(large, own, whole, LIMITS)
    np.save(tmp_path / "large.npy", np.zeros((3, 8, 200), np.float16))
    with pytest.raises(ValueError, match=r"^large.npy has 200 x 8 pixels"):
        read_upload(tmp_path / "large.npy", True, False, LIMITS)


def test_files_that_are_no_picture(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "heavy.png").write_bytes(bytes(60_000))
    for name, message in (
        ("notes.png", "not an image"),
        ("empty.png", "empty"),
        ("heavy.png", "has 0.1 MB; this page takes at most 0.05 MB"),
    ):
        with pytest.raises(ValueError, match=f"^{name}.*{message}") as error:
            read_upload(tmp_path / name, True, False, LIMITS)
        assert str(tmp_path) not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no picture: upload one"):
        read_upload(None, True, False, LIMITS)


def test_a_painted_hole(tmp_path: Path) -> None:
    layer = paint()
    layer[10:20, 30:40, 3] = 1
    measured = painted_hole([paint(), layer], (40, 60))
    assert (~measured).sum() == 100 and not measured[15, 35]
    written = mask_file(None, [layer], (40, 60), tmp_path)
    assert (read_mask(written) == measured).all()


@pytest.mark.parametrize("white_is_missing", [False, True])
def test_masks_are_read_and_painted_in_the_convention_that_is_chosen(tmp_path: Path, white_is_missing: bool) -> None:
    layer = paint()
    layer[10:20, 30:40, 3] = 1
    written = mask_file(None, [layer], (40, 60), tmp_path, white_is_missing=white_is_missing)
    assert (~read_mask(written, white_is_missing=white_is_missing)).sum() == 100
    PIL.Image.new("L", (60, 40), 255).save(tmp_path / "white.png")
    message = "no measured pixel" if white_is_missing else "nothing is marked"
    with pytest.raises(ValueError, match=message):
        mask_file(tmp_path / "white.png", [], (40, 60), tmp_path, white_is_missing=white_is_missing)


def test_holes_that_mark_nothing_or_everything(tmp_path: Path) -> None:
    everywhere = paint() + np.uint8(255)
    for layers, message in (([paint()], "nothing is marked"), ([], "nothing"), ([everywhere], "everything is marked")):
        with pytest.raises(ValueError, match=message):
            mask_file(None, layers, (40, 60), tmp_path)
    with pytest.raises(ValueError, match="paint on it anew"):
        painted_hole([paint(30, 60)], (40, 60))


def test_uploaded_masks(tmp_path: Path) -> None:
    levels = np.full((40, 60), 255, np.uint8)
    PIL.Image.fromarray(levels).save(tmp_path / "white.png")
    PIL.Image.fromarray(0 * levels).save(tmp_path / "black.png")
    levels[:5] = 0
    PIL.Image.fromarray(levels).save(tmp_path / "good.png")
    assert mask_file(tmp_path / "good.png", [paint()], (40, 60), tmp_path) == tmp_path / "good.png"
    layer = paint()
    layer[0, 0, 3] = 255
    for name, layers, size, message in (
        ("white.png", [], (40, 60), "nothing is marked as missing"),
        ("black.png", [], (40, 60), "^black.png: the mask has no measured pixel"),
        ("good.png", [], (40, 61), "^good.png has 60 x 40 pixels and the picture 61 x 40: resize the mask"),
        ("good.png", [layer], (40, 60), "the hole is painted and a mask is uploaded"),
    ):
        with pytest.raises(ValueError, match=message):
            mask_file(tmp_path / name, layers, size, tmp_path)


def test_kernels(tmp_path: Path) -> None:
    for name, kernel in (
        ("good", np.ones((3, 5))),
        ("even", np.ones((4, 5))),
        ("zeros", np.zeros((3, 3))),
        ("negative", -np.ones((3, 3))),
    ):
        np.save(tmp_path / f"{name}.npy", kernel)
    assert kernel_file(None) is None and kernel_file(tmp_path / "good.npy") == tmp_path / "good.npy"
    for name, message in (
        ("even", "both sides must be odd"),
        ("zeros", "all zeros"),
        ("negative", "not negative"),
    ):
        with pytest.raises(ValueError, match=f"^{name}.npy.*{message}"):
            kernel_file(tmp_path / f"{name}.npy")


def test_a_bundled_photograph_stands_for_a_measurement_at_256_pixels(tmp_path: Path) -> None:
    assert PIL.Image.open(bundled("coffee", True, tmp_path, Limits())).size == (256, 256)
    assert PIL.Image.open(bundled("coffee", True, tmp_path, LIMITS)).size == (100, 100)
    assert PIL.Image.open(bundled("coffee", False, tmp_path, LIMITS)).size == (600, 400)


def test_errors_name_no_folder_and_no_flag(tmp_path: Path) -> None:
    error = ValueError(f"{tmp_path}/a.png: too\n large for --size")
    assert shown(error, tmp_path / "a.png", None) == "a.png: too large for size"
