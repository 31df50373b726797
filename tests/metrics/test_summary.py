"""A run's metrics by hand: means over images, samples within them, and differences of two runs."""

from __future__ import annotations

import numpy as np
import pytest

from pag_inverse.metrics.summary import difference, summarise


def scores(*images: list[float], name: str = "psnr") -> dict[str, list[dict[str, float]]]:
    return {f"{i}": [{name: value} for value in samples] for i, samples in enumerate(images)}


def test_the_mean_over_images() -> None:
    found = summarise("psnr", scores([20.0], [22.0], [27.0]))
    assert (found.n, found.mean, found.spread, found.worst) == (3, 23.0, None, None)
    half = 4.302653 * np.std([20, 22, 27], ddof=1) / 3**0.5  # Student's t for two degrees of freedom
    assert (found.low, found.high) == pytest.approx((23 - half, 23 + half), rel=1e-6)
    assert summarise("psnr", scores([20.0])).low is None


def test_an_image_counts_with_the_mean_of_its_samples() -> None:
    found = summarise("psnr", scores([20.0, 22.0], [30.0, 36.0]))
    assert (found.mean, found.worst, found.best) == (27.0, 25.0, 29.0)
    assert found.spread == pytest.approx((2**0.5 + 18**0.5) / 2)
    lpips = summarise("lpips", scores([0.2, 0.4], name="lpips"))
    assert (lpips.worst, lpips.best) == (0.4, 0.2)  # lower is better


def test_images_without_a_metric_do_not_count() -> None:
    mixed = {**scores([20.0]), "x": [{"ssim": 0.5}]}
    assert summarise("psnr", mixed).n == 1
    missing = summarise("lpips", mixed, "no weights")
    assert missing.mean is None and missing.reason == "no weights"


def test_the_difference_of_two_runs_is_paired() -> None:
    before, after = scores([20.0], [30.0], [25.0]), scores([21.0], [31.0])
    found = difference("psnr", before, after)
    assert found is not None and (found.n, found.mean, found.low, found.high) == (2, 1.0, 1.0, 1.0)
    assert difference("lpips", before, after) is None
