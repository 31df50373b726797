"""What was drawn for each image can be saved, and an operator built from it measures the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators import Blur, BoxInpainting, GaussianBlur, Inpainting, Operator, SuperResolution, make_operator

SHAPE = (3, 40, 48)
BATCH = 3


def built(name: str, settings: dict[str, object]) -> Operator:
    return make_operator(name, SHAPE, settings, [np.random.default_rng(seed) for seed in range(BATCH)])


def rebuilt(arrays: dict[str, NDArray]) -> Operator:
    if "kernel" in arrays:
        return Blur(arrays["kernel"], SHAPE)
    return Inpainting(arrays["mask"], SHAPE)


def images(dtype: torch.dtype) -> Tensor:
    return torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("box_inpainting", {"margin": 4}),
        ("box_inpainting", {"position": (3, 5, 20, 30)}),
        ("gaussian_blur", {"kernel_size": 61, "std": 2.0}),
        ("motion_blur", {"kernel_size": 31, "intensity": 0.5}),
        ("motion_blur", {"kernel_size": 9, "intensity": 0.5}),
    ],
)
def test_a_saved_array_gives_the_same_measurement(
    name: str, settings: dict[str, object], dtype: torch.dtype, tmp_path: object
) -> None:
    operator, x = built(name, settings), images(dtype)
    for b in range(BATCH):
        np.savez(f"{tmp_path}/image.npz", **operator.arrays(b))
        with np.load(f"{tmp_path}/image.npz") as saved:
            again = rebuilt({key: saved[key] for key in saved.files})
        assert torch.equal(again.forward(x[b : b + 1]), operator.select([b]).forward(x[b : b + 1]))


def test_arrays_are_of_the_image_that_was_asked_for() -> None:
    operator = BoxInpainting(SHAPE, [(1, 2, 9, 5), (0, 0, 3, 4)])
    mask = operator.arrays(1)["mask"]
    assert mask.dtype == np.uint8 and mask.shape == (40, 48) and set(np.unique(mask)) == {0, 1}
    assert (mask[:3, :4] == 0).all() and (mask == 0).sum() == 12
    kernels = np.random.default_rng(0).normal(size=(2, 5, 7))
    saved = Blur(kernels, SHAPE).arrays(1)["kernel"]
    assert saved.dtype == np.float64 and np.array_equal(saved, kernels[1])
    assert np.array_equal(Blur(kernels[0], SHAPE).arrays(7)["kernel"], kernels[0])  # one kernel serves every image


def test_a_saved_array_is_a_copy() -> None:
    operator, x = GaussianBlur(SHAPE, 9, 1.0), images(torch.float64)
    before = operator.forward(x)
    operator.arrays(0)["kernel"][:] = 0
    assert torch.equal(operator.forward(x), before)


def test_nothing_is_saved_where_the_settings_say_everything() -> None:
    assert SuperResolution(SHAPE, 8).arrays(0) == {}


def test_an_image_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="image 2 of a batch of 2; it must be from 0 to 1"):
        BoxInpainting(SHAPE, [(1, 2, 9, 5), (0, 0, 3, 4)]).arrays(2)
