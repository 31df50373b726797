"""Figures show every pixel they are given, with fixed or stated scales, and are the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pag_inverse.data.images import to_uint8
from pag_inverse.reports.figures import (
    ERROR_LEVELS,
    comparison,
    comparison_figure,
    deviation_map,
    error_map,
    residual_curve,
    residual_figure,
    save,
    to_bytes,
)

GAP = 8
BLUE = np.array([0x00, 0x72, 0xB2])
ORANGE = np.array([0xD5, 0x5E, 0x00])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def drawn(picture: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return (picture == colour).all(axis=2)


def test_a_comparison_keeps_every_pixel() -> None:
    tall, small = noise(3, 256, 200), noise(3, 32, 32)
    picture = comparison([("truth", tall), ("measurement", small)])
    assert picture.dtype == np.uint8 and picture.shape[1] == 200 + 256 + 3 * GAP
    shown = picture[-GAP - 256 : -GAP]
    np.testing.assert_array_equal(shown[:, GAP : GAP + 200], to_uint8(tall))
    enlarged = to_uint8(small).repeat(8, axis=0).repeat(8, axis=1)
    np.testing.assert_array_equal(shown[:, 2 * GAP + 200 : -GAP], enlarged)
    above = picture[: -GAP - 256]
    assert 20 <= len(above) <= 40 and (above[:, :200] < 128).any() and (above[:, 208:] < 128).any(), "titles are drawn"


def test_small_pictures_are_enlarged_until_titles_are_readable() -> None:
    image = noise(3, 64, 64)
    picture = comparison([("truth", image)])
    np.testing.assert_array_equal(picture[-GAP - 192 : -GAP : 3, GAP:-GAP:3], to_uint8(image))


def test_large_and_wide_pictures_have_a_comparison() -> None:
    wide = np.zeros((20, 9000, 3), np.uint8)
    picture = comparison([("truth", wide)] * 8)
    assert 8 * 4000 < picture.shape[1] < 8 * 4096 + 9 * GAP  # matplotlib draws no more than 65535


def test_a_long_title_is_wrapped_and_a_dollar_is_no_formula() -> None:
    image = noise(3, 192, 192)
    short, long = (
        comparison([(title, image)]) for title in ("truth", "a title of many words that needs two lines $x$")
    )
    assert long.shape[0] > short.shape[0] and long.shape[1] == short.shape[1]
    margin = long[: -GAP - 192, -2:]
    assert (margin == 255).all(), "no title is cut"


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="one tile or more"):
        comparison([])


def test_an_error_map_has_a_fixed_scale() -> None:
    truth = np.zeros((3, 4, 4), np.float32)
    image = truth.copy()
    image[:, 0, 0], image[:, 0, 1], image[0, 1, 1] = 64 / 127.5, -32 / 127.5, 1.0
    title, shown = error_map(image, truth)
    assert title == "error, 8-bit levels" and shown.top == ERROR_LEVELS == 64
    np.testing.assert_allclose(shown.values[:2, :2], [[64, 32], [0, 42.5]], atol=1e-4)
    with pytest.raises(ValueError, match="two images of one shape"):
        error_map(image, truth[:, :2])


def test_equal_errors_have_equal_colours_in_every_map() -> None:
    truth = np.zeros((3, 192, 192), np.float32)
    small, large = truth.copy(), truth.copy()
    small[:, :96], large[:, :96], large[:, 96:] = 16 / 127.5, 16 / 127.5, 1.0
    pictures = [comparison([error_map(image, truth)]) for image in (small, large)]
    first, second = (picture[-GAP - 192, GAP] for picture in pictures)
    np.testing.assert_array_equal(first, second)
    assert pictures[1].shape[1] > 192 + 2 * GAP + 20, "a colour bar stands beside it"


def test_a_deviation_is_the_samples_own() -> None:
    samples = np.zeros((3, 3, 8, 8), np.float32)
    samples[:, :, 0, 0] = np.array([-0.1, 0.0, 0.1])[:, None]
    title, shown = deviation_map(samples)
    assert title == "std, 8-bit levels" and shown.top == pytest.approx(12.75)  # 0.1 of a range of 2 over 255
    assert shown.values[0, 0] == pytest.approx(12.75) and shown.values[1:].max() == 0
    comparison([deviation_map(np.zeros((2, 3, 8, 8)))])
    with pytest.raises(ValueError, match="two samples or more"):
        deviation_map(samples[:1])


@pytest.mark.parametrize(
    "residuals, level",
    [
        (list(np.geomspace(100, 20, 50)), 21.0),
        ([1.0, float("nan"), 2.0, float("inf"), 0.0], None),
        ([3.0], None),
        ([], None),
        ([float("nan")] * 5, float("nan")),
        ([2.0] * 3, 1.9),
        (list(np.geomspace(1e-8, 1e9, 1000)), None),
        ([1.0, 1.0 + 1e-12], 1.0),
    ],
)
def test_a_residual_curve_always_draws(residuals: list[float], level: float | None) -> None:
    picture = residual_curve(residuals, level=level)
    assert picture.shape == (416, 640, 3) and picture.dtype == np.uint8
    assert drawn(picture, BLUE).any() == any(np.isfinite(value) and value > 0 for value in residuals)


def test_a_residual_that_falls_is_drawn_falling() -> None:
    rows, columns = np.nonzero(drawn(residual_curve(list(np.geomspace(100, 1, 30))), BLUE))
    assert np.corrcoef(rows, columns)[0, 1] > 0.999, "an exponential is a straight line on a logarithmic axis"


def test_two_curves_share_a_plot_and_few_points_are_spread_over_the_steps() -> None:
    curves = {"without PAG": [8.0, 4.0, 2.0], "with PAG": [6.0, 3.0, 1.5]}
    figure = residual_figure(curves, level=1.0, steps=1000)
    (axes,) = figure.axes
    assert [list(line.get_xdata())[-1] for line in axes.lines if len(line.get_xdata()) == 3] == [999, 999]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*curves, "expected of the noise"]
    assert "sigma" in axes.get_ylabel() and "sigma" not in residual_figure(curves).axes[0].get_ylabel()


def test_figures_are_saved_as_their_suffix_says(tmp_path: Path) -> None:
    figure = residual_figure({"": [3.0, 2.0, 1.0]})
    starts = {"a.png": b"\x89PNG", "a.pdf": b"%PDF", "a.SVG": b"<?xml", "plain.png": b"\x89PNG"}
    for name in ("a.png", "a.pdf", "a.SVG", "plain"):
        save(figure, tmp_path / name)
    assert {p.name: p.read_bytes()[: len(starts[p.name])] for p in tmp_path.iterdir()} == starts
    with pytest.raises(ValueError, match="unknown format 'gif' of a figure; there are png, pdf, svg"):
        save(figure, tmp_path / "a.gif")
    assert not (tmp_path / "a.gif").exists()


def test_a_saved_png_has_the_pixels_of_the_picture(tmp_path: Path) -> None:
    tiles = [("truth", noise(3, 192, 64)), error_map(noise(3, 192, 64), np.zeros((3, 192, 64), np.float32))]
    save(comparison_figure(tiles), tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "a.png").convert("RGB")), comparison(tiles))


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_input_gives_the_same_bytes(kind: str) -> None:
    code = (
        "import hashlib, numpy as np; from pag_inverse.reports.figures import *\n"
        "tiles = [('truth', np.zeros((3, 192, 64), np.float32))]\n"
        "for figure in (comparison_figure(tiles), residual_figure({'a': [3.0, 2.0], 'b': [2.0, 1.0]}, level=1.0)):\n"
        f"    print(hashlib.sha256(to_bytes(figure, {kind!r})).hexdigest())"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second and len(first.split()) == 2


def test_no_global_state_of_matplotlib_is_touched() -> None:
    code = (
        "import sys, matplotlib\n"
        "from pag_inverse.reports.figures import *\n"
        "state = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = state(); to_bytes(residual_figure({'': [2.0, 1.0]}), 'svg')\n"
        "sys.exit('matplotlib.pyplot' in sys.modules or state() != before)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_matplotlib_waits_until_a_figure_is_drawn() -> None:
    code = "import sys, pag_inverse.reports.evaluation, pag_inverse.reports.comparison\n"
    code += "sys.exit(bool({'matplotlib', 'jinja2', 'skimage', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_bytes_are_a_whole_file() -> None:
    assert to_bytes(residual_figure({"": [2.0, 1.0]})).endswith(b"IEND\xaeB`\x82")
