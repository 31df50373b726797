"""Images read as a person sees them, and 8 bits and back without loss."""

from __future__ import annotations

import errno
import logging
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile
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
    read_picture,
    to_uint8,
    write_png,
    write_whole,
)

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def saved(folder: Path, picture: PIL.Image.Image, name: str = "x.png", **options: object) -> Path:
    picture.save(folder / name, **options)
    return folder / name


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


def test_transparency_is_over_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, 0], rgba[0, 1], rgba[1, 2] = (10, 20, 30, 255), (200, 0, 0, 0), (0, 0, 0, 127)
    image = to_uint8(read_image(saved(tmp_path, PIL.Image.fromarray(rgba))))
    assert image[0, 0].tolist() == [10, 20, 30]
    assert image[0, 1].tolist() == [255, 255, 255]
    assert image[1, 2].tolist() == [128, 128, 128]


def test_grey_with_transparency_is_over_white(tmp_path):
    grey = PIL.Image.new("LA", (3, 2), (7, 0))
    assert (read_image(saved(tmp_path, grey)) == 1.0).all()


def test_palettes(tmp_path):
    palette = PIL.Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 250, 120, 40])
    assert to_uint8(read_image(saved(tmp_path, palette)))[0, 0].tolist() == [250, 120, 40]
    assert (read_image(saved(tmp_path, palette, "clear.png", transparency=1)) == 1.0).all()


def test_grey_and_one_bit(tmp_path):
    grey = PIL.Image.fromarray(COLOURS[:, :, 0])
    image = read_image(saved(tmp_path, grey))
    np.testing.assert_array_equal(image, from_uint8(COLOURS[:, :, 0]))
    assert (read_image(saved(tmp_path, PIL.Image.new("1", (3, 2), 1))) == 1.0).all()


def test_16_bit_keeps_its_precision(tmp_path):
    levels = np.array([[0, 1, 32768], [257, 65534, 65535]], dtype=np.uint16)
    for name in ("x.png", "x.tif"):
        image = read_image(saved(tmp_path, PIL.Image.fromarray(levels), name))
        assert image.shape == (3, 2, 3) and image.dtype == np.float32
        np.testing.assert_allclose(image[1], levels / 32767.5 - 1.0, atol=1e-7)


def linear_profile() -> bytes:
    """A matrix profile with the primaries of sRGB and a gamma of 1, built by hand as ICC.1 says."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    xyz = {"wtpt": (0.9642, 1.0, 0.8249), "rXYZ": (0.4360, 0.2225, 0.0139)}
    xyz |= {"gXYZ": (0.3851, 0.7169, 0.0971), "bXYZ": (0.1431, 0.0606, 0.7141)}
    tags = {name: b"XYZ \0\0\0\0" + fixed(*values) for name, values in xyz.items()}
    tags |= {f"{c}TRC": b"curv\0\0\0\0\0\0\0\0" for c in "rgb"}  # no entries: the identity
    tags["desc"] = b"desc\0\0\0\0" + struct.pack(">I", 7) + b"linear\0" + bytes(78)
    tags["cprt"] = b"text\0\0\0\0none\0"
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name.encode() + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = struct.pack(">I", len(tags)) + table + data
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return header + body


def test_colours_are_those_of_the_embedded_profile(tmp_path):
    """In a linear profile half the light is level 188 of sRGB: 255 (1.055 0.5^(1/2.4) - 0.055) = 187.5."""
    grey = PIL.Image.new("RGB", (4, 4), (128, 128, 128))
    found = read_picture(saved(tmp_path, grey, icc_profile=linear_profile()))
    assert np.abs(found.astype(int) - 188).max() <= 1
    clear = PIL.Image.new("RGBA", (4, 4), (128, 128, 128, 255))
    clear.putpixel((0, 0), (128, 128, 128, 0))
    found = read_picture(saved(tmp_path, clear, icc_profile=linear_profile()))
    assert (found[0, 0] == 255).all() and np.abs(found[1:].astype(int) - 188).max() <= 1


def test_the_profile_of_srgb_and_a_damaged_one_change_nothing(tmp_path):
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", linear_profile()[:140]):
        path = saved(tmp_path, PIL.Image.fromarray(COLOURS), icc_profile=profile)
        np.testing.assert_array_equal(read_picture(path), COLOURS)


def test_whole_numbers_of_32_bits_have_no_known_range(tmp_path):
    path = saved(tmp_path, PIL.Image.fromarray(np.full((4, 4), 200, np.int32)), "x.tif")
    with pytest.raises(ValueError, match="32-bit or signed pixels, whose range is not known"):
        read_image(path)


def test_16_bit_grey_whose_zero_is_white(tmp_path):
    """As scanners save it; Pillow leaves these inverted."""
    levels = np.array([[0, 65535], [1000, 40000]], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", levels, photometric="miniswhite")
    np.testing.assert_allclose(read_image(tmp_path / "x.tif")[0], 1 - levels / 32767.5, atol=1e-6)


def test_a_transparent_level_of_16_bit_grey(tmp_path):
    levels = np.array([[1000, 32768], [65535, 1000]], dtype=np.uint16)
    path = saved(tmp_path, PIL.Image.fromarray(levels), transparency=1000)
    found = (read_image(path)[0] + 1) / 2
    np.testing.assert_allclose(found, [[1, 32768 / 65535], [1, 1]], atol=1e-6)


def test_colours_of_16_bits_keep_8(tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", levels)
    found = (read_image(tmp_path / "x.tif") + 1) / 2
    np.testing.assert_allclose(found, levels.transpose(2, 0, 1) / 65535, atol=1 / 255)


def test_cmyk(tmp_path):
    image = read_image(saved(tmp_path, PIL.Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "x.jpg"))
    assert image.min() > 0.98


@pytest.mark.parametrize("orientation, turned", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_turns_the_picture(tmp_path, orientation, turned):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, PIL.Image.fromarray(COLOURS), exif=exif)
    np.testing.assert_array_equal(to_uint8(read_image(path)), np.rot90(COLOURS, turned))


def test_files_that_are_no_image(tmp_path):
    whole = saved(tmp_path, PIL.Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "whole.png")
    jpeg = saved(tmp_path, PIL.Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "whole.jpg")
    content = {
        "cut.png": whole.read_bytes()[:3000],
        "cut.jpg": jpeg.read_bytes()[:3000],
        "header.png": whole.read_bytes()[:20],
        "flipped.png": whole.read_bytes()[:60] + bytes(200) + whole.read_bytes()[260:],
        "empty.png": b"",
        "text.png": b"not an image",
    }
    for name, data in content.items():
        tmp_path.joinpath(name).write_bytes(data)
    saved(tmp_path, PIL.Image.new("RGB", (1, 1)), "dot.png")
    saved(tmp_path, PIL.Image.new("F", (4, 4)), "float.tif")
    tmp_path.joinpath("folder").mkdir()
    reasons = {
        "cut.png": "cannot be read: ",
        "cut.jpg": "cannot be read: ",
        "header.png": "",
        "flipped.png": "",
        "empty.png": "the file is empty",
        "text.png": "not an image of a kind that Pillow reads",
        "dot.png": "1 x 1 pixels, too small to restore",
        "float.tif": "floating-point pixels",
        "folder": "cannot be read: Is a directory",
        "missing.png": "cannot be read: No such file or directory",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError) as error:
            read_image(tmp_path / name)
        message = str(error.value)
        assert message.startswith(f"{tmp_path / name}: ") and reason in message and "\n" not in message


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
