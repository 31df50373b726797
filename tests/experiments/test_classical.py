"""Classical restorations improve on what was measured, and minimise what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from operators import GaussianBlur, GaussianNoise, Inpainting, MotionBlur, SuperResolution
from pag_inverse.data.images import bundled_photograph, prepare, to_uint8
from pag_inverse.experiments import classical
from pag_inverse.metrics.paired import psnr

SIDE = 64


@pytest.fixture(scope="module")
def truth():
    return torch.from_numpy(prepare(bundled_photograph("coffee"), 256)[None, :, 96:160, 96:160].copy())


def measure(operator, truth, sigma=0.05):
    generator = torch.Generator().manual_seed(1)
    return GaussianNoise(sigma)(operator.forward(truth), lambda shape: torch.randn(shape, generator=generator))


def quality(x, truth):
    return psnr(to_uint8(x[0]), to_uint8(truth[0]))


def test_deconvolutions_beat_the_measurement(truth):
    operator = GaussianBlur((3, SIDE, SIDE), 25, 1.5)
    y = measure(operator, truth, 0.02)
    measured = quality(y, truth)
    assert quality(classical.total_variation(operator, y, 0.002), truth) > measured + 0.5
    assert quality(classical.wiener(operator, y, 0.05), truth) > measured + 0.3
    assert quality(classical.richardson_lucy(operator, y, 8), truth) > measured + 0.3


def test_the_point_spread_is_not_mirrored(truth):
    kernel = np.zeros((9, 9))
    kernel[4, 4:], kernel[4, 8] = 0.1, 0.6
    from operators import Blur

    operator = Blur(kernel / kernel.sum(), (3, SIDE, SIDE))
    y = operator.forward(truth)
    restored = quality(classical.wiener(operator, y, 1e-3), truth)
    mirrored = Blur(operator.arrays(0)["kernel"][::-1, ::-1], operator.in_shape)
    assert restored > quality(y, truth) + 2
    assert restored > quality(classical.wiener(mirrored, y, 1e-3), truth) + 5


def test_total_variation_is_a_minimum(truth):
    operator = SuperResolution((3, SIDE, SIDE), 4)
    y, weight = measure(operator, truth), 0.01

    def objective(x):
        down, right = x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]
        length = (down[..., :-1].square().sum(1) + right[..., :-1, :].square().sum(1) + 1e-12).sqrt()
        return float((operator.forward(x) - y).square().sum() / 2 + weight * length.sum())

    x = classical.total_variation(operator, y, weight)
    rng = torch.Generator().manual_seed(0)
    worse = [objective(x + 0.02 * torch.randn(x.shape, generator=rng)) for _ in range(4)]
    smoother = objective(0.9 * x + 0.1 * x.mean())
    assert objective(x) < min(*worse, smoother, objective(operator.enlarge(y)), objective(truth))


def test_the_norm_of_an_operator():
    mask = np.ones((16, 16))
    mask[:4] = 0
    assert classical.largest_eigenvalue(Inpainting(mask, (3, 16, 16))) == pytest.approx(1.02, abs=0.01)
    kernel_sum_one = MotionBlur.from_settings(
        (3, 64, 64), {"kernel_size": 15, "intensity": 0.5, "center": False}, [np.random.default_rng(0)]
    )
    assert 0.9 < classical.largest_eigenvalue(kernel_sum_one) < 1.3


def test_biharmonic_fills_the_hole_and_nothing_else(truth):
    mask = np.ones((SIDE, SIDE))
    mask[20:36, 24:40] = 0
    operator = Inpainting(mask, (3, SIDE, SIDE))
    y = operator.forward(truth)
    x = classical.biharmonic(operator, y)
    known = torch.from_numpy(mask).bool().expand(1, 3, -1, -1)
    assert torch.allclose(x[known], truth[known], atol=1e-6)
    assert quality(x, truth) > quality(y, truth) + 6


def test_bicubic_is_nearer_than_repeated_pixels(truth):
    operator = SuperResolution((3, SIDE, SIDE), 4)
    y = measure(operator, truth)
    assert quality(classical.bicubic(operator, y), truth) > quality(operator.enlarge(y), truth)
