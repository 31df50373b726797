"""Measurements, masks and kernels mean what a person who saved them means, or are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from pag_inverse.data.arrays import read_kernel, read_mask, read_measurement
from pag_inverse.data.images import bundled_photograph, from_uint8, prepare, to_uint8

LEVELS = np.random.default_rng(0).integers(60, 200, (8, 10, 3), dtype=np.uint8)
IMAGE = from_uint8(LEVELS)


def npy(folder: Path, array: Any) -> Path:
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


def png(folder: Path, picture: PIL.Image.Image) -> Path:
    picture.save(folder / "x.png")
    return folder / "x.png"


def refusal(read: Any, path: Path) -> str:
    with pytest.raises(ValueError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


def test_a_measurement_in_every_form_it_is_saved_in(tmp_path: Path) -> None:
    forms = [IMAGE, IMAGE[None], IMAGE.transpose(1, 2, 0), IMAGE.astype(np.float64), LEVELS, LEVELS.transpose(2, 0, 1)]
    for array in (*forms, LEVELS.astype(np.int64)):
        found = read_measurement(npy(tmp_path, array))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, IMAGE, atol=1e-6)
    np.testing.assert_array_equal(read_measurement(png(tmp_path, PIL.Image.fromarray(LEVELS))), IMAGE)


def test_the_noise_of_a_measurement_may_leave_the_range(tmp_path: Path) -> None:
    noisy = IMAGE + np.random.default_rng(0).standard_normal(IMAGE.shape).astype(np.float32)
    np.testing.assert_array_equal(read_measurement(npy(tmp_path, noisy)), noisy)


@pytest.mark.parametrize(
    "array, named",
    [
        (LEVELS.astype(np.float32).transpose(2, 0, 1), "float32 from 60 to 199; a measurement of floats is in [-1, 1]"),
        ((IMAGE + 1) / 2, "looks like the range 0..1"),
        (LEVELS.astype(np.uint16).transpose(2, 0, 1) * 257, "whole numbers is 0..255"),
        (LEVELS.astype(np.int16).transpose(2, 0, 1) - 128, "whole numbers is 0..255"),
        (LEVELS.transpose(2, 0, 1) > 128, "whole numbers is 0..255"),
        (IMAGE[0], "a measurement is an array (3, H, W), not (8, 10)"),
        (np.stack([IMAGE, IMAGE]), "not (2, 3, 8, 10)"),
        (np.full_like(IMAGE, np.nan), "NaN or Inf"),
        (IMAGE.astype(np.complex64), "holds complex64, not real numbers"),
        (np.array(["a"]), "not real numbers"),
        (np.zeros((3, 0, 4)), "is empty"),
    ],
)
def test_a_measurement_in_another_range_or_shape_is_refused(tmp_path: Path, array: Any, named: str) -> None:
    assert named in refusal(read_measurement, npy(tmp_path, array))


def test_an_array_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"torn")
    assert "is no array that numpy can read" in refusal(read_measurement, tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    assert "holds object, not real numbers" in refusal(read_kernel, tmp_path / "x.npy")


KNOWN = np.ones((8, 10), dtype=bool)
KNOWN[2:5, 3:7] = False


@pytest.mark.parametrize(
    "array",
    [KNOWN, KNOWN[None], KNOWN[None, None], KNOWN.astype(np.uint8), 255 * KNOWN.astype(np.uint8), KNOWN * 1.0,
     np.where(KNOWN, 200, 100).astype(np.int64)],
)  # fmt: skip
def test_a_mask_in_every_form_it_is_saved_in(tmp_path: Path, array: Any) -> None:
    np.testing.assert_array_equal(read_mask(npy(tmp_path, array)), KNOWN)


def test_a_mask_picture_is_white_where_it_was_measured(tmp_path: Path) -> None:
    levels = 255 * KNOWN.astype(np.uint8)
    levels[0, 0], levels[2, 3] = 140, 120  # soft edges
    for picture in (levels, levels.astype(np.uint16) * 257, np.repeat(levels[:, :, None], 3, axis=2)):
        np.testing.assert_array_equal(read_mask(png(tmp_path, PIL.Image.fromarray(picture))), KNOWN)


def test_what_was_erased_is_missing(tmp_path: Path) -> None:
    """From a white layer, from a photograph, and beside what was painted black."""
    opacity = PIL.Image.fromarray(255 * KNOWN.astype(np.uint8))
    photograph = PIL.Image.fromarray(to_uint8(prepare(bundled_photograph("coffee"), 10)[:, :8]))
    for layer in (PIL.Image.new("RGB", (10, 8), "white"), photograph):
        layer.putalpha(opacity)
        np.testing.assert_array_equal(read_mask(png(tmp_path, layer)), KNOWN)
    layer = PIL.Image.new("RGBA", (10, 8), "white")
    layer.putalpha(opacity)
    layer.putpixel((0, 0), (0, 0, 0, 255))
    found = read_mask(png(tmp_path, layer))
    assert not found[0, 0] and (found.sum(), KNOWN.sum()) == (67, 68)


def test_a_mask_without_a_measured_pixel_is_refused(tmp_path: Path) -> None:
    strokes = PIL.Image.new("RGBA", (10, 8), (0, 0, 0, 0))
    PIL.ImageDraw.Draw(strokes).rectangle([2, 2, 5, 5], fill="black")
    pictures = [PIL.Image.new("L", (10, 8), 0), strokes]
    for path in (npy(tmp_path, np.zeros((8, 10))), *(png(tmp_path, picture) for picture in pictures)):
        assert "the mask has no measured pixel; white, True or 1 is what was measured" in refusal(read_mask, path)


def test_a_picture_of_0_and_1_is_refused_with_the_reason(tmp_path: Path) -> None:
    for levels in (KNOWN, np.ones_like(KNOWN)):
        path = png(tmp_path, PIL.Image.fromarray(levels.astype(np.uint8)))
        for white_is_missing in (False, True):
            with pytest.raises(ValueError, match=r"in a picture white is 255: 0 and 1 count only in a \.npy"):
                read_mask(path, white_is_missing=white_is_missing)
    bits = png(tmp_path, PIL.Image.fromarray(255 * KNOWN.astype(np.uint8)).convert("1"))
    np.testing.assert_array_equal(read_mask(bits), KNOWN)  # a picture of one bit is black and white


@pytest.mark.parametrize(
    "array, named",
    [
        (255.0 * KNOWN, "float64 from 0 to 255; a mask is bool, floats 0..1, or whole numbers 0..255"),
        (KNOWN.astype(np.int64) - 1, "int64 from -1 to 0"),
        (300 * KNOWN.astype(np.int64), "int64 from 0 to 300"),
        (np.stack([KNOWN] * 3), "is an array (H, W), not (3, 8, 10)"),
        (np.full((8, 10), np.inf), "NaN or Inf"),
    ],
)
def test_a_mask_of_another_range_is_refused(tmp_path: Path, array: Any, named: str) -> None:
    assert named in refusal(read_mask, npy(tmp_path, array))


def test_a_photograph_is_no_mask(tmp_path: Path) -> None:
    picture = PIL.Image.fromarray(to_uint8(prepare(bundled_photograph("coffee"), 32)))
    assert "neither black (missing) nor white (measured)" in refusal(read_mask, png(tmp_path, picture))


def test_a_kernel_is_divided_by_its_sum(tmp_path: Path) -> None:
    levels = np.array([[0, 10, 0], [40, 200, 0], [0, 0, 5]], dtype=np.uint8)
    expected = levels / 255.0
    for path in (
        npy(tmp_path, levels),
        npy(tmp_path, levels * 1e-3),
        png(tmp_path, PIL.Image.fromarray(levels)),
        png(tmp_path, PIL.Image.fromarray(levels.astype(np.uint16) * 257)),
    ):
        found = read_kernel(path)
        assert found.dtype == np.float64 and found.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-12)


def test_a_kernel_drawn_on_a_transparent_layer(tmp_path: Path) -> None:
    layer = PIL.Image.new("RGBA", (5, 5), (0, 0, 0, 0))
    PIL.ImageDraw.Draw(layer).line([(1, 1), (3, 1)], fill="white")
    found = read_kernel(png(tmp_path, layer))
    assert found[1, 1:4] == pytest.approx([1 / 3] * 3) and found.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "array, named",
    [
        (np.zeros((5, 5)), "the kernel is all zeros"),
        (np.array([[0.5, -0.1]]), "a kernel is not negative; its least value is -0.1"),
        (np.ones((3, 5, 5)), "is an array (H, W), not (3, 5, 5)"),
        (np.ones(5), "not (5,)"),
        (np.array([[np.nan, 1.0]]), "NaN or Inf"),
    ],
)
def test_a_kernel_that_is_none_is_refused(tmp_path: Path, array: Any, named: str) -> None:
    assert named in refusal(read_kernel, npy(tmp_path, array))


NIGHT = (prepare(bundled_photograph("coffee"), 64) + 1) / 2


@pytest.mark.parametrize(
    "dark", [lambda x: x**4, lambda x: x * 0.3, lambda x: 1 - (1 - x) * 0.1, lambda x: 1 - (1 - x) * 0.05]
)
def test_a_dark_or_bright_photograph_is_no_mask_and_what_is_erased_of_it_is_one(tmp_path: Path, dark: Any) -> None:
    picture = PIL.Image.fromarray(to_uint8((2 * dark(NIGHT) - 1).astype(np.float32)))
    for grey in (picture, picture.convert("L")):
        refusal(read_mask, png(tmp_path, grey))
    levels = np.asarray(picture.convert("L"))
    for array in (levels, levels / 255):
        refusal(read_mask, npy(tmp_path, array))
    opacity = np.full((64, 64), 255, np.uint8)
    opacity[10:40, 20:30] = 0
    picture.putalpha(PIL.Image.fromarray(opacity))
    np.testing.assert_array_equal(read_mask(png(tmp_path, picture)), opacity > 0)


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_a_mask_keeps_its_meaning_with_soft_edges_and_as_jpeg(tmp_path: Path, quality: int) -> None:
    large = PIL.Image.new("L", (512, 512), 255)
    PIL.ImageDraw.Draw(large).ellipse([100, 100, 300, 350], fill=0)
    soft = large.resize((128, 128), PIL.Image.Resampling.LANCZOS)
    soft.save(tmp_path / "x.jpg", quality=quality)
    found = read_mask(tmp_path / "x.jpg")
    assert (found == (np.asarray(soft) >= 128)).mean() > 0.99
    np.testing.assert_array_equal(read_mask(npy(tmp_path, np.asarray(soft) / 255)), np.asarray(soft) >= 128)


def test_floats_0_to_1_with_noise_are_refused_and_a_bright_measurement_is_not(tmp_path: Path) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(NIGHT.shape)
    assert "looks like the range 0..1" in refusal(read_measurement, npy(tmp_path, NIGHT + noise))
    bright = 1 - 0.7 * (1 - NIGHT) + noise
    bright[:, :4] = -0.4
    np.testing.assert_allclose(read_measurement(npy(tmp_path, bright)), bright, atol=1e-6)


def test_a_kernel_that_is_too_large_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "a kernel has at most 4194304" in refusal(read_kernel, npy(tmp_path, np.ones((2049, 2048), np.uint8)))
    assert not caplog.records


@pytest.mark.parametrize("read, side, most", [(read_mask, 6000, "34 million"), (read_kernel, 2100, "4 million")])
def test_a_picture_too_large_for_its_purpose_is_refused_by_its_header(
    tmp_path: Path, read: Any, side: int, most: str
) -> None:
    assert f"at most {most}" in refusal(read, png(tmp_path, PIL.Image.new("1", (side, side), 1)))
