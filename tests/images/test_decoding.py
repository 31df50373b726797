"""Image files read as a person sees them, whatever their mode, depth, profile and orientation; damaged ones refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile
from PIL.PngImagePlugin import PngInfo

from pag_inverse.data.images import from_uint8, read_image, read_picture, to_uint8

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)


def saved(folder: Path, picture: PIL.Image.Image, name: str = "x.png", **options: object) -> Path:
    picture.save(folder / name, **options)
    return folder / name


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
        "folder": "it is a folder, not a file",
        "missing.png": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError) as error:
            read_image(tmp_path / name)
        message = str(error.value)
        assert message.startswith(f"{tmp_path / name}: ") and reason in message and "\n" not in message


def test_a_gamma_that_a_png_names_and_lab_are_shown_as_viewers_show_them(tmp_path: Path) -> None:
    linear = PngInfo()
    linear.add(b"gAMA", (100000).to_bytes(4, "big"))
    usual = PngInfo()
    usual.add(b"gAMA", (45455).to_bytes(4, "big"))
    grey = PIL.Image.new("RGB", (4, 4), (55, 55, 55))
    grey.save(tmp_path / "linear.png", pnginfo=linear)
    grey.save(tmp_path / "usual.png", pnginfo=usual)
    assert read_picture(tmp_path / "linear.png")[0, 0, 0] == round(255 * (55 / 255) ** (1 / 2.2))
    assert read_picture(tmp_path / "usual.png")[0, 0, 0] == 55
    lab = np.full((2, 2, 3), [138, 81, 70], np.uint8)  # L* 54 (of 255), a* 81, b* 70: the red of sRGB
    tifffile.imwrite(tmp_path / "lab.tif", lab, photometric="cielab")
    assert np.abs(read_picture(tmp_path / "lab.tif")[0, 0].astype(int) - [255, 0, 0]).max() <= 6


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(tmp_path: Path) -> None:
    file = saved(tmp_path, PIL.Image.new("1", (12000, 12000)), "large.png")
    with pytest.raises(ValueError, match="12000 x 12000 pixels; at most 89 million"):
        read_image(file)


def named(profile: bytes, description: bytes) -> bytes:
    return profile.replace(b"linear\0", description)


def test_a_profile_is_srgb_by_its_curve_and_not_by_its_name(tmp_path: Path) -> None:
    profile = named(linear_profile(), b"a sRGB\0")
    grey = PIL.Image.new("P", (4, 4), 0)
    grey.putpalette([128, 128, 128])
    for picture in (PIL.Image.new("RGB", (4, 4), (128, 128, 128)), grey, PIL.Image.new("L", (4, 4), 128)):
        found = read_picture(saved(tmp_path, picture, icc_profile=profile))
        assert np.abs(found.astype(int) - 188).max() <= 1
    deep = PIL.Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    assert np.abs(read_picture(saved(tmp_path, deep, icc_profile=profile)).astype(int) - 188).max() <= 1


def test_gamma_comes_before_transparency(tmp_path: Path) -> None:
    linear = PngInfo()
    linear.add(b"gAMA", (100000).to_bytes(4, "big"))
    clear = PIL.Image.new("RGBA", (4, 4), (55, 55, 55, 51))
    level = 0.2 * (55 / 255) ** (1 / 2.2) + 0.8
    assert read_picture(saved(tmp_path, clear, pnginfo=linear))[0, 0, 0] == round(255 * level)


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save it with an alpha channel"):
        read_image(deep_png(tmp_path / "x.png"))


def deep_png(path: Path) -> Path:
    """A PNG of 16-bit colours with one that is transparent, built by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)) + chunk(b"tRNS", bytes(6))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def test_12_bits_are_scaled_by_their_depth(tmp_path: Path) -> None:
    """Two pixels of 12 bits, 4095 and 2048, in three bytes a row; two rows."""
    entries = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 2, 279: 6}
    table = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + bytes([0xFF, 0xF8, 0x00]) * 2
    (tmp_path / "x.tif").write_bytes(content)
    found = (read_image(tmp_path / "x.tif")[0] + 1) / 2
    np.testing.assert_allclose(found, [[1, 2048 / 4095]] * 2, atol=1e-6)
