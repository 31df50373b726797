"""Motion kernels: the statistics of the published generator, and what its arguments mean."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from operators import motion_kernel

SEEDS = range(300)
# relative tolerance of the mean and of the spread over 300 kernels; drawing others moves the means by 3 %
STATISTICS = {
    "support_pixels": (0.1, 0.1),
    "rms_radius": (0.1, 0.1),
    "centroid_y": (0.03, 0.15),
    "centroid_x": (0.03, 0.15),
    "bbox_h": (0.1, 0.2),
    "bbox_w": (0.1, 0.2),
}


def draw(seed: int, size: int = 61, intensity: float = 0.5, center: bool = False) -> np.ndarray:
    return motion_kernel(size, intensity, np.random.default_rng(seed), center)


def statistics(kernel: np.ndarray) -> dict[str, float]:
    rows, columns = np.mgrid[: len(kernel), : len(kernel)]
    y, x = (kernel * rows).sum(), (kernel * columns).sum()
    touched_y, touched_x = np.nonzero(kernel)
    return {
        "support_pixels": float(len(touched_y)),
        "rms_radius": float(np.sqrt((kernel * ((rows - y) ** 2 + (columns - x) ** 2)).sum())),
        "centroid_y": float(y),
        "centroid_x": float(x),
        "bbox_h": float(np.ptp(touched_y) + 1),
        "bbox_w": float(np.ptp(touched_x) + 1),
    }


@pytest.fixture(scope="module")
def population() -> list[np.ndarray]:
    return [draw(seed) for seed in SEEDS]


@pytest.mark.parametrize("name", STATISTICS)
def test_population_is_the_published_one(
    name: str, population: list[np.ndarray], recorded_kernels: dict[str, Tensor]
) -> None:
    mine = np.array([statistics(kernel)[name] for kernel in population])
    published = recorded_kernels[f"pop300_{name}"].numpy()
    mean, spread = STATISTICS[name]
    assert mine.mean() == pytest.approx(published.mean(), rel=mean)
    assert mine.std() == pytest.approx(published.std(), rel=spread)


def test_kernels_are_weights_in_8_bit(population: list[np.ndarray]) -> None:
    for kernel in population:
        assert kernel.shape == (61, 61) and kernel.min() == 0.0
        assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
        assert len(np.unique(kernel)) <= 256


def test_a_larger_kernel_is_the_same_path_at_another_scale() -> None:
    small, large = (np.mean([statistics(draw(s, size))["rms_radius"] for s in range(10)]) for size in (41, 81))
    assert large / small == pytest.approx(81 / 41, rel=0.02)


def test_a_peak_is_as_bright_as_published(population: list[np.ndarray], recorded_kernels: dict[str, Tensor]) -> None:
    peaks = [kernel.max() for kernel in population]
    assert np.median(peaks) == pytest.approx(np.median(recorded_kernels["pop300_max"].numpy()), rel=0.2)


def test_a_seed_is_a_kernel() -> None:
    assert np.array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))


@pytest.mark.parametrize("seed", range(5))
def test_intensity_0_is_a_straight_line(seed: int) -> None:
    kernel = draw(seed, intensity=0.0)
    rows, columns = np.mgrid[:61, :61]
    spread = np.cov(rows.ravel(), columns.ravel(), aweights=kernel.ravel(), ddof=0)
    assert np.linalg.eigvalsh(spread)[0] < 0.4  # pixels squared: the line's own width


def test_center_puts_the_centre_of_gravity_in_the_middle(population: list[np.ndarray]) -> None:
    def offset(kernel: np.ndarray) -> float:
        found = statistics(kernel)
        return float(np.hypot(found["centroid_y"] - 30, found["centroid_x"] - 30))

    centred = [draw(seed, center=True) for seed in range(60)]
    inside = [kernel for kernel in centred if not border(kernel).any()]
    assert len(inside) > 40
    assert max(map(offset, inside)) < 0.5 < np.mean([offset(kernel) for kernel in population])


def border(kernel: np.ndarray) -> np.ndarray:
    return np.concatenate([kernel[0], kernel[-1], kernel[:, 0], kernel[:, -1]])


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("intensity", [0.0, 1.0])
def test_small_kernels_are_weights_too(size: int, intensity: float) -> None:
    for seed in range(100):
        assert draw(seed, size, intensity).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("size", "intensity", "message"),
    [
        (60, 0.5, "60"),
        (0, 0.5, "0"),
        (-3, 0.5, "-3"),
        (5.0, 0.5, "5.0"),
        (61, 1.1, "1.1"),
        (61, -0.1, "-0.1"),
    ],
)
def test_arguments_out_of_range(size: int, intensity: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"is {message}; it must be"):
        draw(0, size, intensity)
