"""The same measurements and the same linear solves as deepinv, an independent library (Tachella et al., 2025)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import (
    Blur,
    Compose,
    GaussianBlur,
    Grayscale,
    Inpainting,
    MotionBlur,
    Operator,
    SuperResolution,
    gaussian_kernel,
    random_mask,
)

physics = pytest.importorskip("deepinv", reason="deepinv is not installed: pip install '.[test]'").physics

ODD, EVEN = (3, 37, 29), (3, 32, 48)
BATCH = 2
MASKS = np.stack([random_mask(ODD, np.random.default_rng(seed)) for seed in range(BATCH)])
KERNELS = np.random.default_rng(1).uniform(size=(BATCH, 1, 7, 5)) / 18  # of no symmetry


def rngs() -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(BATCH)]


def images(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(BATCH, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def blur(kernel: Any) -> Any:
    kernels = torch.as_tensor(np.array(kernel))
    return physics.Blur(filter=kernels.reshape(-1, 1, *kernels.shape[-2:]), padding="reflect")


def downsampling(factor: int) -> Any:
    with warnings.catch_warnings():  # of its own deprecated calls
        warnings.simplefilter("ignore")
        return physics.DownsamplingMatlab(factor=factor)


MOTION = MotionBlur(ODD, rngs(), 31, 0.5)
PAIRS: dict[str, Callable[[], tuple[Operator, Any]]] = {
    "masks": lambda: (
        Inpainting(MASKS, ODD),
        physics.Inpainting(img_size=ODD, mask=torch.from_numpy(MASKS)[:, None].expand(-1, 3, -1, -1)),
    ),
    "super_resolution": lambda: (SuperResolution(EVEN, 8), downsampling(8)),
    "gaussian_blur": lambda: (GaussianBlur(ODD, 13, 1.5), blur(gaussian_kernel(13, 1.5))),
    "motion_blur": lambda: (MOTION, blur(np.stack([MOTION.arrays(b)["kernel"] for b in range(BATCH)]))),
    "kernels": lambda: (Blur(KERNELS, ODD), blur(KERNELS)),
    "reduced_after_blur": lambda: (
        Compose(SuperResolution(EVEN, 4), GaussianBlur(EVEN, 13, 1.5)),
        downsampling(4) * blur(gaussian_kernel(13, 1.5)),
    ),
}
MAPS = PAIRS | {  # deepinv 0.5 misses the minimum of this one's proximal step
    "grayscale": lambda: (Grayscale(ODD, (0.5, 0.3, 0.2)), physics.Decolorize(channels=3, srf=[0.5, 0.3, 0.2])),
}
every_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


@pytest.mark.parametrize("pair", MAPS.values(), ids=MAPS)
def test_the_same_measurement_and_adjoint(pair: Callable[[], tuple[Operator, Any]]) -> None:
    """Blurs with reflected borders are true convolutions in both libraries."""
    operator, other = pair()
    x, y = images(operator.in_shape, 1), images(operator.out_shape, 2)
    torch.testing.assert_close(operator.forward(x), other.A(x).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(operator.adjoint(y), other.A_adjoint(y).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["super_resolution", "gaussian_blur", "motion_blur"])
def test_the_range_of_images_does_not_matter_to_averages(name: str) -> None:
    """deepinv's images are in [0, 1]: sigma there is half of ours, and averages are the same."""
    operator, other = PAIRS[name]()
    x = images(operator.in_shape, 1)
    torch.testing.assert_close(operator.forward(x), 2 * other.A((x + 1) / 2).double() - 1, rtol=0, atol=1e-6)


def test_circular_blurs_agree_away_from_the_border() -> None:
    other = physics.BlurFFT(img_size=ODD, filter=torch.from_numpy(KERNELS))
    x = images(ODD, 1)
    inside = (..., slice(3, -3), slice(2, -2))
    torch.testing.assert_close(Blur(KERNELS, ODD).forward(x)[inside], other.A(x).double()[inside], rtol=0, atol=1e-5)


@every_pair
@pytest.mark.parametrize(("rho", "bound"), [(0.03, 2e-4), (1.0, 1e-5)])
def test_the_same_proximal_step(pair: Callable[[], tuple[Operator, Any]], rho: float, bound: float) -> None:
    """deepinv's gamma is 1 / rho: argmin gamma / 2 ||A z - y||^2 + 1 / 2 ||z - x||^2.

    Its conjugate gradients come to rest about 1e-4 from where A* (A z - y) + rho (z - x) = 0, so that this decides.
    """
    operator, other = pair()
    x, y = images(operator.in_shape, 1), images(operator.out_shape, 2)
    expected = other.prox_l2(x, y, 1 / rho, solver="CG", max_iter=60, tol=1e-9).double()
    found = x + operator.adjoint(operator.solve(y - operator.forward(x), rho, tolerance=1e-8))
    torch.testing.assert_close(found, expected, rtol=0, atol=bound)
    torch.testing.assert_close(operator.prox(x, y, rho), expected, rtol=0, atol=1e-2)  # within the usual tolerance

    def slope(z: Tensor) -> float:
        return float((operator.adjoint(operator.forward(z) - y) + rho * (z - x)).norm())

    assert slope(found) < 1e-5 * slope(x) and slope(found) < slope(expected) + 1e-12


@pytest.mark.parametrize(("name", "bound"), [("masks", 1e-5), ("super_resolution", 2e-3)])
def test_the_same_pseudo_inverse(name: str, bound: float) -> None:
    operator, other = PAIRS[name]()
    y = images(operator.out_shape, 2)
    expected = other.A_dagger(y, solver="CG", max_iter=60, tol=1e-9).double()
    torch.testing.assert_close(operator.pinv(y), expected, rtol=0, atol=bound)
