"""PSNR and SSIM against scikit-image, sharpness by construction."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pag_inverse.metrics.paired import psnr, sharpness, ssim

RNG = np.random.default_rng(0)


def test_psnr_and_ssim_are_scikit_images() -> None:
    truth = RNG.integers(0, 256, (48, 40, 3), dtype=np.uint8)
    picture = np.clip(truth + RNG.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    assert psnr(picture, truth) == pytest.approx(peak_signal_noise_ratio(truth, picture, data_range=255), abs=1e-6)
    expected = structural_similarity(truth, picture, channel_axis=2, data_range=255)
    assert ssim(picture, truth) == pytest.approx(expected, abs=1e-6)
    assert psnr(truth, truth) == float("inf")


def test_sharpness_falls_with_blur_and_rises_with_grain() -> None:
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
