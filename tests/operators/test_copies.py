"""`to` and `select`: copies that keep an operator whole, whatever it holds, in inference mode and in threads too."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import (
    Blur,
    BoxInpainting,
    GaussianBlur,
    Inpainting,
    MotionBlur,
    Operator,
    SuperResolution,
    random_mask,
)

SHAPE = (3, 24, 32)
BOXES = [(1, 2, 9, 5), (0, 0, 3, 4), (10, 20, 7, 9)]


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Sampler(Operator):
    """A user's operator with every kind of array: pixels picked by index, times weights and phases of each image."""

    per_image = ("weights", "names")

    def __init__(self, count: int = 3) -> None:
        super().__init__((1, 4, 4), (1, 1, 3))
        self.picked = torch.tensor([1, 5, 9])
        self.known = torch.tensor([True, True, False])
        self.phases = torch.tensor([1 + 1j, 2j, -1 + 0j])
        self.weights = torch.arange(1.0, 1.0 + count)
        self.names = [f"image {i}" for i in range(count)]
        self.tables = {"half": [torch.full((3,), 0.5)], "power": 1}
        self.inner = Blur(np.ones((3, 3)) / 9, (1, 4, 4))
        self.network = torch.nn.Linear(3, 3)

    @cached_property
    def total(self) -> Tensor:
        """Derived from an array of each image: of no use to a copy that holds other images."""
        return self.weights.sum()

    def _forward(self, x: Tensor) -> Tensor:
        pixels = self.inner.forward(x).flatten(2)[..., self.picked] * self.known
        values = pixels * self.phases.abs().to(x) * self.tables["half"][0].to(x) * self.weights.to(x)[:, None, None]
        return (values / self.total.to(x))[:, :, None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_to_casts_real_and_complex_arrays_only(dtype: torch.dtype) -> None:
    operator = Sampler()
    moved = operator.to("cpu", dtype)
    assert moved.picked.dtype == torch.int64 and moved.known.dtype == torch.bool
    assert moved.phases.dtype == (torch.complex128 if dtype == torch.float64 else torch.complex64)
    assert moved.weights.dtype == moved.inner.kernel.dtype == moved.tables["half"][0].dtype == dtype
    assert moved.network.weight.dtype == dtype and operator.network.weight.dtype == torch.float32
    assert moved.names == operator.names and moved.tables["power"] == 1
    x = normal((3, 1, 4, 4), 1)
    torch.testing.assert_close(moved.forward(x), operator.forward(x), rtol=1e-2, atol=1e-2)


def test_to_without_a_dtype_changes_nothing() -> None:
    operator = Sampler()
    assert operator.to("cpu").phases is operator.phases and operator.to("cpu").weights is operator.weights


def test_to_another_device() -> None:
    moved = Sampler().to("meta")
    arrays = (moved.picked, moved.phases, moved.weights, moved.tables["half"][0], moved.inner.kernel)
    assert all(array.device.type == "meta" for array in arrays) and moved.network.weight.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.complex64])
def test_to_takes_a_floating_point_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"dtype is torch\..*; it must be floating point"):
        Sampler().to("cpu", dtype)


def test_select_keeps_all_that_belongs_to_an_image_in_step() -> None:
    operator, x = Sampler(), normal((3, 1, 4, 4), 1)
    assert float(operator.total) == 6.0
    some = operator.select([2, 0])
    assert some.names == ["image 2", "image 0"] and some.weights.tolist() == [3.0, 1.0]
    torch.testing.assert_close(some.forward(x[[2, 0]]) * 4, operator.forward(x)[[2, 0]] * 6)
    assert operator.names == ["image 0", "image 1", "image 2"] and float(operator.total) == 6.0


@pytest.mark.parametrize("indices", [[2, 0], torch.tensor([2, 0]), (2, 0), [-1, 0]])
def test_boxes_follow_their_masks(indices: object) -> None:
    chosen = BoxInpainting(SHAPE, BOXES).select(indices)  # type: ignore[arg-type]
    assert chosen.boxes == (BOXES[2], BOXES[0])
    for (top, left, height, width), mask in zip(chosen.boxes, chosen.mask, strict=True):
        assert (mask[0, top : top + height, left : left + width] == 0).all()
        assert int((mask == 0).sum()) == height * width


def test_truth_values_select_too() -> None:
    chosen = BoxInpainting(SHAPE, BOXES).select(torch.tensor([True, False, True]))
    assert chosen.boxes == (BOXES[0], BOXES[2])


def test_a_single_box_serves_every_image() -> None:
    assert BoxInpainting(SHAPE, BOXES[:1]).select([4, 7]).boxes == (BOXES[0],)


@pytest.mark.parametrize("index", [3, -4])
def test_select_of_an_image_that_is_not_there(index: int) -> None:
    with pytest.raises(ValueError, match=f"image {index} of a batch of 3; it must be from 0 to 2"):
        BoxInpainting(SHAPE, BOXES).select([0, index])


class Sharpened(Blur):
    """A subclass that has something of its own for each image."""

    per_image = ("amounts",)

    def __init__(self, kernel: np.ndarray, amounts: tuple[float, ...]) -> None:
        super().__init__(kernel, SHAPE)
        self.amounts = amounts


def test_what_a_subclass_names_adds_to_its_parents() -> None:
    operator = Sharpened(np.stack([np.eye(3), 2 * np.eye(3)]), (0.5, 0.7))
    alone = operator.select([1])
    assert alone.amounts == (0.7,) and float(alone.kernel.sum()) == 6.0
    assert set(BoxInpainting.per_image) == {"mask", "boxes"} and Blur.per_image == ("kernel",)


BUILD: dict[str, Callable[[], Operator]] = {
    "mask": lambda: Inpainting(random_mask(SHAPE, np.random.default_rng(0)), SHAPE),
    "mask_tensor": lambda: Inpainting(torch.rand(24, 32) > 0.5, SHAPE),
    "box": lambda: BoxInpainting(SHAPE, BOXES[:1]),
    "super_resolution": lambda: SuperResolution(SHAPE, 8),
    "gaussian_blur": lambda: GaussianBlur(SHAPE, 25, 2.0),
    "motion_blur": lambda: MotionBlur(SHAPE, [np.random.default_rng(0)], 31, 0.5),
    "kernel_tensor": lambda: Blur(torch.ones(3, 3, dtype=torch.float64), SHAPE),
    "own": lambda: Sampler(1),
}


def gradients(operator: Operator, dtype: torch.dtype) -> None:
    """The gradient of <A x, y> is A* y, and that of <A* y, x> is A x."""
    x, y = (
        normal((1, *shape), i, dtype).requires_grad_()
        for i, shape in enumerate((operator.in_shape, operator.out_shape))
    )
    (gradient,) = torch.autograd.grad((operator.forward(x) * y.detach()).sum(), x)
    torch.testing.assert_close(gradient, operator.adjoint(y.detach()), rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad((operator.adjoint(y) * x.detach()).sum(), y)
    torch.testing.assert_close(gradient, operator.forward(x.detach()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_an_operator_of_inference_mode_serves_autograd(build: Callable[[], Operator]) -> None:
    with torch.inference_mode():
        operator = build()
        x, y = torch.zeros(1, *operator.in_shape), torch.zeros(1, *operator.out_shape)
        operator.forward(x), operator.adjoint(y), operator.project(x, y)
        moved, chosen = operator.to("cpu", torch.float64), operator.select([0])
    gradients(operator, torch.float32)
    gradients(moved, torch.float64)
    gradients(chosen, torch.float64)


def test_to_mends_arrays_of_inference_mode() -> None:
    operator = Sampler(1)
    with torch.inference_mode():
        operator.weights = torch.tensor([2.0])
    mended = operator.to("cpu")
    assert operator.weights.is_inference() and not mended.weights.is_inference()
    gradients(mended, torch.float32)


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_autocast_changes_no_result(build: Callable[[], Operator]) -> None:
    operator = build()
    x = torch.rand(1, *operator.in_shape)
    expected = operator.forward(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = operator.forward(x)
    assert y.dtype == torch.float32 and torch.equal(y, expected)


def test_inference_mode_changes_no_result() -> None:
    operator = MotionBlur(SHAPE, [np.random.default_rng(0)], 31, 0.5)
    x = normal((1, *SHAPE), 1)
    with torch.inference_mode():
        inside = operator.forward(x)
    assert torch.equal(inside, operator.forward(x))


def test_a_new_kernel_has_a_new_spectrum() -> None:
    x, kernels = normal((1, *SHAPE), 1), np.random.default_rng(0).uniform(size=(3, 27, 27))
    operator = Blur(kernels[0], SHAPE)
    operator.forward(x)
    operator.kernel = Blur(kernels[1], SHAPE).kernel
    assert torch.equal(operator.forward(x), Blur(kernels[1], SHAPE).forward(x))
    operator.kernel.copy_(torch.from_numpy(kernels[2]))
    assert torch.equal(operator.forward(x), Blur(kernels[2], SHAPE).forward(x))
    both = Blur(kernels[:2], SHAPE)
    both.forward(torch.cat([x, x]))
    assert torch.equal(both.select([1]).forward(x), Blur(kernels[1], SHAPE).forward(x))


def test_a_users_array_may_change_afterwards() -> None:
    kernel, mask = np.eye(3), np.ones((24, 32))
    blur, inpainting, x = Blur(kernel, SHAPE), Inpainting(mask, SHAPE), normal((1, *SHAPE), 1)
    before = blur.forward(x), inpainting.forward(x)
    kernel[:], mask[:] = 0, 0
    assert torch.equal(blur.forward(x), before[0]) and torch.equal(inpainting.forward(x), before[1])


def test_threads_share_one_operator() -> None:
    operator = MotionBlur(SHAPE, [np.random.default_rng(0)], 31, 0.5)
    xs = [normal((1, *SHAPE), i, (torch.float64, torch.float32)[i % 2]) for i in range(8)]
    alone = [(operator.forward(x), operator.adjoint(x)) for x in xs]

    def work(i: int) -> bool:
        return all(
            torch.equal(operator.forward(xs[i]), alone[i][0]) and torch.equal(operator.adjoint(xs[i]), alone[i][1])
            for _ in range(50)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
