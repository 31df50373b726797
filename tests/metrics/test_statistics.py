"""Intervals against scipy's own and the normal one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pag_inverse.metrics.statistics import bootstrap_interval, estimate, paired_difference


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


def test_the_bootstrap_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert bootstrap_interval(values) == (low, high)
