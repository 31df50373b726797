"""8 bits and back without loss, resizing, and files written whole."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pag_inverse.data import images
from pag_inverse.data.images import (
    BUNDLED,
    bundled_photograph,
    from_uint8,
    list_images,
    prepare,
    read_image,
    to_uint8,
    write_png,
    write_whole,
)

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def test_all_levels_survive_both_ways():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = from_uint8(levels)
    assert image.dtype == np.float32 and image.shape == (3, 16, 16)
    assert image.min() == -1.0 and image.max() == 1.0
    np.testing.assert_array_equal(to_uint8(image), np.repeat(levels[:, :, None], 3, axis=2))


def test_to_uint8_rounds_and_clips():
    values = np.array([-2.0, -1.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 1.0, 7.0], dtype=np.float32)
    image = np.broadcast_to(values, (3, 1, 6))
    np.testing.assert_array_equal(to_uint8(image)[0, :, 0], [0, 0, 0, 1, 255, 255])


def test_to_uint8_takes_tensors_and_grey():
    image = noise(3, 5, 4)
    tensor = torch.from_numpy(image).requires_grad_()
    np.testing.assert_array_equal(to_uint8(tensor), to_uint8(image))
    assert to_uint8(torch.zeros(1, 5, 4, dtype=torch.bfloat16)).shape == (5, 4, 3)


@pytest.mark.parametrize(
    "image, named",
    [
        (noise(3, 4), "not float32 (3, 4)"),
        (noise(1, 3, 4, 4), "(1, 3, 4, 4)"),
        (noise(4, 4, 3), "(4, 4, 3)"),
        (np.zeros((3, 4, 4), np.uint8), "not uint8"),
        (np.full((3, 4, 4), np.nan, np.float32), "NaN or Inf"),
        (np.full((3, 4, 4), np.inf, np.float32), "NaN or Inf"),
    ],
)
def test_to_uint8_refuses(image, named):
    with pytest.raises(ValueError) as error:
        to_uint8(image)
    assert named in str(error.value)


@pytest.mark.parametrize("picture", [noise(4, 4, 3), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_from_uint8_refuses(picture):
    with pytest.raises(ValueError, match="a picture is uint8"):
        from_uint8(picture)


def test_a_png_comes_back_as_written(tmp_path):
    image = from_uint8(COLOURS)
    write_png(tmp_path / "image.png", image)
    write_png(tmp_path / "picture.png", COLOURS)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), image)
    assert (tmp_path / "image.png").read_bytes() == (tmp_path / "picture.png").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["image.png", "picture.png"]


def test_prepare_leaves_a_square_of_the_size_alone():
    image = noise(3, 16, 16)
    for resize in images.RESIZES:
        np.testing.assert_array_equal(prepare(image, 16, resize), image)
    assert prepare(image, 16) is not image


@pytest.mark.parametrize("shape, size", [((40, 24), 24), ((24, 41), 24), ((31, 40), 16), ((10, 12), 32)])
@pytest.mark.parametrize("resize", images.RESIZES)
def test_prepare_cuts_the_centre(shape, size, resize):
    image = np.full((3, *shape), -1.0, np.float32)
    short = min(shape)
    top, left = (shape[0] - short) // 2, (shape[1] - short) // 2
    image[:, top : top + short, left : left + short] = 0.5
    prepared = prepare(image, size, resize)
    assert prepared.shape == (3, size, size) and prepared.dtype == np.float32
    inner = prepared[:, size // 4 : -size // 4, size // 4 : -size // 4]
    np.testing.assert_allclose(inner, 0.5, atol=1e-5)


@pytest.mark.parametrize("size", [32, 48, 128])
def test_bicubic_is_antialiased_on_float(size):
    image = 0.8 * noise(3, 64, 64)
    ours = prepare(image, size)
    theirs = F.interpolate(
        torch.from_numpy(image)[None], size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )[0].clamp(-1, 1)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.abs(ours).max() <= 1.0


def test_reference_enlarges_by_nearest_neighbour():
    image = noise(3, 32, 32)
    theirs = F.interpolate(torch.from_numpy(image)[None], size=(64, 64))[0]
    np.testing.assert_array_equal(prepare(image, 64, "reference"), theirs)


def test_reference_reduces_by_bilinear_without_antialiasing():
    image = noise(3, 64, 64)
    for size in (32, 25):
        theirs = F.interpolate(torch.from_numpy(image)[None], size=(size, size), mode="bilinear")[0]
        np.testing.assert_allclose(prepare(image, size, "reference"), theirs, atol=1e-5)


@pytest.mark.parametrize("size, resize", [(0, "bicubic"), (8, "nearest")])
def test_prepare_refuses(size, resize):
    with pytest.raises(ValueError, match="size is"):
        prepare(noise(3, 8, 8), size, resize)


def test_a_write_that_fails_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"none/x.png"):
        write_png(tmp_path / "none" / "x.png", COLOURS)
    tmp_path.joinpath("file").write_bytes(b"")
    with pytest.raises(OSError, match=r"file/x.png"):
        write_png(tmp_path / "file" / "x.png", COLOURS)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_whole(tmp_path / "x.png", b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*x.png"):
        write_png(tmp_path / "x.png", COLOURS)
    assert (tmp_path / "x.png").read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["file", "x.png"]


def test_list_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.webp", "d.jfif", ".hidden.png", "notes.txt", "._a.jpg"):
        tmp_path.joinpath(name).touch()
    tmp_path.joinpath("folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG", "c.webp", "d.jfif"]
    with pytest.raises(ValueError, match="no such folder"):
        list_images(tmp_path / "none")
    with pytest.raises(ValueError, match="no images in it"):
        list_images(tmp_path / "folder.png")


def test_an_image_of_a_format_that_is_not_read_is_named(tmp_path, caplog):
    for name in ("a.png", "b.HEIC", ".c.heic"):
        tmp_path.joinpath(name).touch()
    with caplog.at_level(logging.WARNING):
        assert [path.name for path in list_images(tmp_path)] == ["a.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'b.HEIC'} is left out: images of this format are not read; save it as PNG"
    ]


@pytest.mark.parametrize("name", list(BUNDLED))
def test_bundled_photographs(name):
    image = bundled_photograph(name)
    assert image.shape[0] == 3 and min(image.shape[1:]) >= 256 and image.dtype == np.float32
    assert image.min() < -0.9 and image.max() > 0.8


def test_other_photographs_are_not_fetched():
    with pytest.raises(ValueError, match="unknown photograph 'eagle'; there are astronaut, chelsea, coffee, rocket"):
        bundled_photograph("eagle")


def test_reading_images_imports_no_torch():
    code = "import sys; import pag_inverse.data.arrays, pag_inverse.data.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
