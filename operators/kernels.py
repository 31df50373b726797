"""Blur kernels: a truncated Gaussian, and motion kernels drawn as random camera paths."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.validation import check_number, check_odd

__all__ = ["gaussian_kernel", "motion_kernel"]

Kernel = NDArray[np.float64]
Path = NDArray[np.complex128]

# The free constants of the motion kernels. With these, kernels of size 61 and intensity 0.5 have, within 3 %,
# the mean number of non-zero pixels (141 +- 63) and rms radius (10.7 +- 4.8 px) of 300 published ones.
STEP = 0.035  # mean step, as a share of the kernel's diagonal
MOMENTUM = 0.5  # how much of its deviation from the main direction a step hands on to the next
FLIP = 0.25  # chance that a step turns hard to the other side, at intensity 1
FINE = 2  # the path is drawn on a grid this many times finer, then
REACH = 1.3  # reduced by a tent of this half width, in pixels of the kernel


def gaussian_kernel(size: int, std: float) -> Kernel:
    """A Gaussian of standard deviation `std` pixels, truncated at 4 std: k[t] ~ exp(-|t|^2 / (2 std^2)).

    It is a unit impulse in (size, size) filtered by scipy.ndimage.gaussian_filter, as published; it is
    separable and its sum is 1. ValueError: a size that is not positive and odd, a std that is not positive.
    """
    check_odd("kernel size", size)
    if not 0.0 < std < math.inf:
        raise ValueError(f"std is {std}; it must be a positive number of pixels")
    from scipy.ndimage import gaussian_filter1d

    impulse = np.zeros(size)
    impulse[size // 2] = 1.0
    taps = gaussian_filter1d(impulse, std)
    return np.outer(taps, taps)


def motion_kernel(size: int, intensity: float, rng: np.random.Generator, center: bool = False) -> Kernel:
    """The trace of a shaken camera: a random path drawn in a window of (size, size), in 8 bit, with sum 1.

    The path is up to 0.75 sqrt(2) size (1 + intensity^2) pixels long; `intensity` in [0, 1] makes it longer
    and more bent (0 is a straight line). The mean of its corners lies in the middle of the window; with
    `center` the centre of gravity of the whole path does, so that the blur does not shift the image. What
    leaves the window is cut off.
    ValueError: a size that is not positive and odd, an intensity outside [0, 1].
    """
    check_odd("kernel size", size)
    check_number("intensity", intensity, maximum=1.0)
    path = _draw_path(size, intensity, rng)
    path -= _centre_of_gravity(path) if center else path.mean()
    drawn = _reduce(_rasterise((path + size * (0.5 + 0.5j)) * FINE, size * FINE))
    kernel: Kernel = np.round(255.0 * drawn)
    kernel /= kernel.sum()
    return kernel


def _draw_path(size: int, intensity: float, rng: np.random.Generator) -> Path:
    """Corners of a random walk that wavers about a main direction with momentum, and flips at times."""
    diagonal = math.hypot(size, size)
    direction = rng.uniform(0.0, 2.0 * math.pi)
    length = 0.75 * diagonal * (rng.uniform() + rng.uniform(0.0, intensity**2))
    widest = rng.uniform(0.0, intensity * math.pi)
    deviation = rng.uniform(-widest, widest)
    corners, travelled = [0j], 0.0
    while travelled < length:
        step = min(rng.gamma(2.0, STEP * diagonal / 2.0), length - travelled)
        corners.append(corners[-1] + step * np.exp(1j * (direction + deviation)))
        travelled += step
        if rng.uniform() < FLIP * intensity:
            deviation = -math.copysign(widest, deviation)
        else:
            deviation = MOMENTUM * deviation + (1.0 - MOMENTUM) * rng.uniform(-widest, widest)
    return np.array(corners)


def _centre_of_gravity(path: Path) -> complex:
    lengths = np.abs(np.diff(path))
    return complex(np.average((path[1:] + path[:-1]) / 2.0, weights=lengths))


def _rasterise(path: Path, side: int) -> Kernel:
    """A line one pixel wide along the path, with soft edges: 1 on it, 0 from one pixel away."""
    centres = np.arange(side) + 0.5
    grid = centres[None, :] + 1j * centres[:, None]
    distance = np.full(grid.shape, np.inf)
    for start, step in zip(path[:-1], np.diff(path), strict=True):
        # The share of the step at which it comes closest; rounding can leave a step of length 0.
        along = ((grid - start) * step.conjugate()).real / max(abs(step) ** 2, 1e-12)
        np.minimum(distance, np.abs(grid - start - np.clip(along, 0.0, 1.0) * step), out=distance)
    line: Kernel = np.clip(1.0 - distance, 0.0, None)
    return line


def _reduce(fine: Kernel) -> Kernel:
    size = len(fine) // FINE
    places = (np.arange(len(fine)) + 0.5) / FINE - 0.5
    tents = np.clip(1.0 - np.abs(places[None, :] - np.arange(size)[:, None]) / REACH, 0.0, None)
    tents /= tents.sum(axis=1).max()
    coarse: Kernel = tents @ fine @ tents.T
    return coarse
