"""Power spectra against white noise, and the distance of sets against closed forms and torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pag_inverse.metrics.spectrum import band_powers, gaussian_distance, half_interval_of_change, spectral_distance


def noise(seed: int, sigma: float = 20.0, side: int = 64) -> np.ndarray:
    levels = np.random.default_rng(seed).normal(128, sigma, (side, side, 1))
    return np.rint(np.repeat(levels, 3, axis=2)).astype(np.uint8)


def test_white_noise_has_its_power_in_every_band() -> None:
    powers = np.mean([band_powers(noise(seed)) for seed in range(20)], axis=0)
    np.testing.assert_allclose(powers, 10 * np.log10(20**2), atol=0.6)


def test_a_blur_takes_the_high_bands_and_a_flat_picture_has_the_power_of_rounding() -> None:
    sharp = noise(0)
    blurred = np.stack([gaussian_filter(sharp[..., c].astype(float), 2) for c in range(3)], axis=2).astype(np.uint8)
    lost = band_powers(sharp) - band_powers(blurred)
    assert lost[0] < 6 and (lost[3:] > 15).all()
    np.testing.assert_allclose(band_powers(np.full((32, 40, 3), 77, np.uint8)), 10 * np.log10(1 / 12), atol=1e-6)
    with pytest.raises(ValueError, match="32 pixels a side, not 40 x 16"):
        band_powers(np.zeros((16, 40, 3), np.uint8))


def test_the_distance_is_that_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 4))
    assert gaussian_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert gaussian_distance(a, a + np.array([3, 0, 4, 0])) == pytest.approx(5)
    assert gaussian_distance(a - a.mean(0), 3 * (a - a.mean(0))) == pytest.approx(2 * np.cov(a.T).trace() ** 0.5)
    b = rng.normal(size=(40, 4)) @ rng.normal(size=(4, 4))
    metric = pytest.importorskip("torch_fidelity.metric_fid")
    parts = [{"mu": x.mean(0), "sigma": np.cov(x.T)} for x in (a, b)]
    published = metric.fid_statistics_to_metric(*parts, verbose=False)[metric.KEY_METRIC_FID]
    assert gaussian_distance(a, b) ** 2 == pytest.approx(published, rel=1e-6)
    with pytest.raises(ValueError, match="at least 2"):
        gaussian_distance(a[:1], b)


def test_sets_of_pictures_and_the_interval_of_a_change() -> None:
    real, near, far = ([noise(seed + at, sigma) for seed in range(6)] for at, sigma in ((0, 20), (6, 22), (12, 60)))
    assert spectral_distance(real, real) == pytest.approx(0, abs=1e-4)
    assert spectral_distance(near, real) < spectral_distance(far, real)
    vectors = [np.stack([band_powers(picture) for picture in side]) for side in (far, near, real)]
    assert half_interval_of_change(vectors[0], vectors[0], vectors[2]) == 0
    assert 0 < half_interval_of_change(*vectors) < spectral_distance(far, real)
