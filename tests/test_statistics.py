"""Intervals against scipy's own and coverage by simulation; sharpness by construction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pag_inverse.metrics.paired import sharpness
from pag_inverse.metrics.statistics import estimate, paired_difference


def test_the_interval_is_the_t_test_s():
    values = [3.1, 2.7, 4.4, 3.3, 2.9]
    found, expected = estimate(values), stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.mean - found.half == pytest.approx(expected.low) and found.mean + found.half == pytest.approx(
        expected.high
    )


def test_pairs_remove_what_pictures_share():
    rng = np.random.default_rng(0)
    difficulty, gain = rng.normal(25, 4, 8), rng.normal(0.5, 0.05, 8)
    found = paired_difference(difficulty + gain, difficulty)
    assert found.mean == pytest.approx(0.5, abs=0.1) and found.half < 0.1
    assert estimate(difficulty).half > 1


def test_one_number_has_no_interval_and_none_is_an_error():
    assert str(estimate([1.0])) == "1.00"
    for bad in (lambda: estimate([]), lambda: paired_difference([1.0], [])):
        with pytest.raises(ValueError):
            bad()


def test_sharpness_falls_with_blur_and_rises_with_grain():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    truth = gaussian_filter(rng.uniform(0, 255, (64, 64, 3)), (1.5, 1.5, 0))
    truth = (255 * (truth - truth.min()) / (np.ptp(truth))).astype(np.uint8)
    soft = gaussian_filter(truth.astype(float), (2, 2, 0)).astype(np.uint8)
    grainy = np.clip(truth + rng.normal(0, 25, truth.shape), 0, 255).astype(np.uint8)
    assert sharpness(truth, truth) == 1.0
    assert sharpness(soft, truth) < 0.8 and sharpness(grainy, truth) > 1.2
    steps = np.zeros((8, 8, 3), np.uint8)
    steps[:, 4:] = 100
    assert sharpness(steps // 2, steps) == pytest.approx(0.5)
