"""The operators against recorded runs of the published programs, and against scipy and torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor

from operators import (
    Blur,
    GaussianBlur,
    Inpainting,
    MotionBlur,
    Operator,
    SuperResolution,
    gaussian_kernel,
    motion_kernel,
)

Recording = dict[str, Tensor]
# Largest difference from the recorded measurement.
TOLERANCE = {"gauss": 1e-6, "motion": 2e-6, "sr4": 1e-6, "sr8": 1e-6}
TASKS = tuple(TOLERANCE)


def build(task: str, recording: Recording, **options: str) -> Operator:
    in_shape = tuple(recording["x"].shape[1:])
    if task == "gauss":
        return GaussianBlur(in_shape, 61, 3.0, **options)
    if task == "motion":
        # The published program correlates: its kernel is flipped where it is read.
        return Blur(recording["motion_kernel"].flip(-2, -1), in_shape, **options)
    return SuperResolution(in_shape, int(task[2:]), **options)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("task", TASKS)
def test_forward_is_the_published_operator(task: str, recorded: Recording) -> None:
    y = build(task, recorded).forward(recorded["x"])
    assert y.dtype == torch.float32
    assert difference(y, recorded[f"y_{task}"]) < TOLERANCE[task]


@pytest.mark.parametrize("task", TASKS)
def test_adjoint_is_the_recorded_vector_jacobian_product(task: str, recorded: Recording) -> None:
    x = build(task, recorded).adjoint(recorded[f"adj_in_{task}"])
    assert difference(x, recorded[f"adj_out_{task}"]) < 1e-6


@pytest.mark.parametrize("task", TASKS)
def test_operators_at_256_pixels(task: str, golden: Callable[[str], Recording]) -> None:
    recording = golden("operators/ops256.npz")
    y = build(task, recording).forward(recording["x"])
    assert difference(y, recording[f"y_{task}"]) < TOLERANCE[task]


def test_box_at_256_pixels(golden: Callable[[str], Recording]) -> None:
    recording = golden("operators/ops256.npz")
    operator = Inpainting(recording["mask_box128"], (3, 256, 256))
    assert torch.equal(operator.forward(recording["x"]), recording["y_box"])


@pytest.mark.parametrize("task", ["gauss", "sr8"])
def test_published_gluing_of_a_recorded_step(task: str, golden: Callable[[str], Recording]) -> None:
    run = golden(f"psld_trajectory/{task}_mode_cleanpred.npz")
    x = run["image_pred_step0"].reshape(1, 3, 128, 128)
    glued = build(task, {"x": x}).project(x, run["y"].reshape(1, 3, *run["y"].shape[-2:]))
    assert difference(glued, run["glue_target_image_step0"].reshape(x.shape)) < 1e-5


@pytest.mark.parametrize("task", ["sr4", "sr8"])
def test_super_resolution_enlarges_by_repeating_pixels(task: str, recorded: Recording) -> None:
    operator = build(task, recorded)
    assert torch.equal(operator.glue(recorded[f"y_{task}"]), recorded[f"{task}_up"])
    assert torch.equal(operator.enlarge(recorded[f"y_{task}"]), recorded[f"{task}_up"])


@pytest.mark.parametrize("task", ["sr4", "sr8"])
def test_super_resolution_is_the_recorded_matrix(task: str, recorded: Recording) -> None:
    operator = build(task, recorded)
    assert isinstance(operator, SuperResolution)
    assert difference(operator.rows, recorded[f"{task}_matrix"]) < 1e-7
    assert difference(operator.columns, recorded[f"{task}_matrix"]) < 1e-7


@pytest.mark.parametrize(("height", "width", "scale"), [(24, 40, 4), (21, 9, 3), (16, 8, 8)])
def test_super_resolution_is_torch_bicubic_of_the_symmetric_image(
    height: int, width: int, scale: int, rng: np.random.Generator
) -> None:
    x = rng.uniform(-1, 1, (1, 3, height, width))
    padded = np.pad(x, ((0, 0), (0, 0), (4 * scale,) * 2, (4 * scale,) * 2), mode="symmetric")
    y = F.interpolate(torch.from_numpy(padded), scale_factor=1 / scale, mode="bicubic", antialias=True)
    operator = SuperResolution((3, height, width), scale)
    assert difference(operator.forward(torch.from_numpy(x)), y[..., 4:-4, 4:-4]) < 1e-12


def test_gaussian_kernel_is_the_recorded_one(recorded: Recording) -> None:
    assert difference(torch.from_numpy(gaussian_kernel(61, 3.0)), recorded["gauss_kernel"]) < 1e-16


@pytest.mark.parametrize("std", [0.8, 3.0])
def test_gaussian_blur_is_scipys(std: float, rng: np.random.Generator) -> None:
    x = rng.uniform(-1, 1, (1, 2, 33, 47))
    expected = scipy.ndimage.gaussian_filter(x, std, mode="mirror", axes=(2, 3))
    y = GaussianBlur((2, 33, 47), 61, std).forward(torch.from_numpy(x))
    assert difference(y, torch.from_numpy(expected)) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sides", [(3, 3), (5, 7), (1, 9), (13, 21), (25, 3), (27, 3), (5, 31)])
def test_blur_is_scipys_convolution_for_each_image(
    sides: tuple[int, int], dtype: torch.dtype, rng: np.random.Generator
) -> None:
    x, kernels = rng.uniform(-1, 1, (2, 3, 19, 27)), rng.normal(size=(2, *sides))
    expected = [
        [scipy.ndimage.convolve(plane, kernel, mode="mirror") for plane in image]
        for image, kernel in zip(x, kernels, strict=True)
    ]
    y = Blur(kernels, (3, 19, 27)).forward(torch.from_numpy(x).to(dtype))
    assert y.dtype == dtype
    error = difference(y, torch.from_numpy(np.array(expected)))
    assert error < {torch.float64: 1e-12, torch.float32: 2e-5}[dtype]


@pytest.mark.parametrize("side", [5, 9, 27])
def test_a_bright_pixel_becomes_the_kernel(side: int, rng: np.random.Generator) -> None:
    kernel = rng.uniform(size=(side, side))
    impulse = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    impulse[..., 15, 15] = 1.0
    half = side // 2
    response = Blur(kernel, (1, 31, 31)).forward(impulse)[0, 0, 15 - half : 16 + half, 15 - half : 16 + half]
    assert difference(response, torch.from_numpy(kernel)) < 1e-15


def test_a_motion_kernel_is_what_a_bright_pixel_becomes() -> None:
    operator = MotionBlur((1, 61, 61), [np.random.default_rng(3)], 31, 0.5)
    impulse = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    impulse[..., 30, 30] = 1.0
    kernel = motion_kernel(31, 0.5, np.random.default_rng(3))
    assert np.abs(kernel - kernel[::-1, ::-1]).max() > 0.01
    response = operator.forward(impulse)[0, 0, 15:46, 15:46]
    assert difference(response, torch.from_numpy(kernel)) < 1e-15
