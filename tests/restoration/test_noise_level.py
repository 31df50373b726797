"""The estimate of sigma, held against noise that was added to scikit-image's photographs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from operators import Blur, Compose, GaussianBlur, Grayscale, Inpainting, LinearOperator, MotionBlur, Operator
from operators import SuperResolution as Smaller
from pag_inverse import PixelPrior, restore
from pag_inverse.data.images import bundled_photograph, from_uint8, prepare, to_uint8
from pag_inverse.restoration.noise_level import ROUNDING, estimate_sigma, is_estimable, sigma_of
from pag_inverse.solvers import DiffPIR

SIDE = 192
PHOTOGRAPHS = {name: prepare(bundled_photograph(name), SIDE) for name in ("astronaut", "chelsea", "coffee", "rocket")}


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    return image + sigma * np.random.default_rng(0).standard_normal(image.shape)


def mask(kind: str) -> np.ndarray:
    known = np.ones((SIDE, SIDE), bool)
    if kind == "box":
        known[48:144, 48:144] = False
    elif kind == "random":
        known = np.random.default_rng(1).random((SIDE, SIDE)) < 0.3
    return known


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("kind", ["none", "box", "random"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_within_a_tenth_of_the_noise_that_was_added(name: str, kind: str, sigma: float) -> None:
    known = mask(kind)
    y = np.where(known, noisy(PHOTOGRAPHS[name], sigma), 0)
    assert estimate_sigma(y, known) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.2])
def test_in_eight_bits(sigma: float) -> None:
    """White and black cut the noise off; those pixels do not count."""
    for image in PHOTOGRAPHS.values():
        y = from_uint8(to_uint8(noisy(image, sigma)))
        assert estimate_sigma(y) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_of_blurred_pictures_and_of_brightness(sigma: float) -> None:
    shape = (3, SIDE, SIDE)
    motion = MotionBlur(shape, [np.random.default_rng(0)], 31)
    for operator in (GaussianBlur(shape, 31, 2.0), motion, Grayscale(shape)):
        for image in PHOTOGRAPHS.values():
            clean = operator.forward(torch.from_numpy(image)[None])
            y = torch.from_numpy(noisy(clean.numpy(), sigma))
            assert sigma_of(y, operator) == pytest.approx(sigma, rel=0.15)


def test_rounding_is_the_least_and_grey_in_three_channels_counts_once() -> None:
    assert estimate_sigma(np.zeros((3, 64, 64))) == ROUNDING == pytest.approx(1 / 127.5 / 12**0.5)
    blurred = GaussianBlur((3, SIDE, SIDE), 31, 3.0).forward(torch.from_numpy(PHOTOGRAPHS["coffee"])[None])
    assert estimate_sigma(from_uint8(to_uint8(blurred[0]))) == pytest.approx(ROUNDING, rel=0.1)
    grey = noisy(PHOTOGRAPHS["chelsea"].mean(axis=0, keepdims=True), 0.1)
    assert estimate_sigma(np.repeat(grey, 3, axis=0)) == estimate_sigma(grey) == pytest.approx(0.1, rel=0.1)


def test_clipped_sky_says_nothing_of_the_noise() -> None:
    y = noisy(PHOTOGRAPHS["coffee"], 0.05)
    y[:, : SIDE // 2] = 1.0
    assert estimate_sigma(y) == pytest.approx(0.05, rel=0.1)


def test_what_is_no_picture_is_not_estimated() -> None:
    shape = (3, 64, 64)
    known = np.zeros((64, 64))
    known[:3] = 1
    few, custom = Inpainting(known, shape), LinearOperator(lambda x: x.flip(-1), shape)
    assert is_estimable(few) and sigma_of(torch.zeros(1, *shape), few) is None
    assert not is_estimable(custom) and not is_estimable(Compose(custom, Blur(np.ones((3, 3)), shape)))
    assert is_estimable(Compose(Smaller(shape, 4), Blur(np.ones((3, 3)), shape)))
    with pytest.raises(ValueError, match="192 measured pixels are too few"):
        estimate_sigma(np.zeros(shape), known)


def test_restore_estimates_the_sigma_of_each_measurement(
    pixel: PixelPrior, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each picture of a batch is restored with its own: a batch equals singles."""
    operator: Operator = Blur(np.ones((3, 3)) / 9, (3, 64, 64))
    clean = operator.forward(torch.from_numpy(prepare(bundled_photograph("chelsea"), 64))[None])
    y = torch.cat([torch.from_numpy(noisy(clean.numpy(), sigma)).float() for sigma in (0.05, 0.2)])
    seen: list[str] = []
    step: Callable[..., object] = DiffPIR.step
    monkeypatch.setattr(DiffPIR, "step", lambda self, *a, **b: (seen.append("diffpir"), step(self, *a, **b))[1])
    both = restore(y, operator=operator, prior=pixel, steps=2)
    assert len(seen) == 4 and both.x.shape == (2, 1, 3, 64, 64)
    told = [said for record in caplog.records if "is estimated" in (said := record.getMessage())]
    assert len(told) == 2 and "picture 1: sigma is estimated: " in told[1] and "[-1, 1]" in told[0]
    single = restore(y[1:], operator=operator, prior=pixel, steps=2, names=["1"])
    torch.testing.assert_close(both.x[1], single.x[0])
    torch.testing.assert_close(both.residuals[1], single.residuals[0])
    stopped = restore(y, operator=operator, prior=pixel, steps=2, callback=lambda *_: True)
    assert stopped.stopped and stopped.failed == {(1, 0): 0} and float(stopped.x[1].abs().max()) == 0
