"""What holds for every operator: exact adjoints, independent images, gluing, shapes and types."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import operators.blur
from operators import (
    Blur,
    BoxInpainting,
    Compose,
    Diagonal,
    GaussianBlur,
    Grayscale,
    Identity,
    Inpainting,
    LinearOperator,
    MotionBlur,
    Operator,
    RandomInpainting,
    SuperResolution,
    random_mask,
)

BATCH = 3
ODD, EVEN = (3, 37, 29), (3, 32, 24)


def streams() -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(BATCH)]


def masks() -> np.ndarray:
    return np.stack([random_mask(ODD, rng) for rng in streams()])


def kernels(side: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(BATCH, 1, side, side)) / side


BOXES = [(1, 2, 9, 5), (0, 0, 3, 4), (30, 20, 7, 9)]
Build = Callable[[str], Operator]
CASES: dict[str, Build] = {
    "masks": lambda project: Inpainting(masks(), ODD, project=project),
    "boxes": lambda project: BoxInpainting(ODD, BOXES, project=project),
    "super_resolution": lambda project: SuperResolution(EVEN, 8, project=project),
    "super_resolution_odd": lambda project: SuperResolution((3, 21, 35), 7, project=project),
    "gaussian_blur": lambda project: GaussianBlur(ODD, 61, 2.5, project=project),
    "motion_blur": lambda project: MotionBlur(ODD, streams(), 31, 0.7, project=project),
    "kernels_direct": lambda project: Blur(kernels(5), ODD, project=project),
    "kernels_fft": lambda project: Blur(kernels(11), ODD, project=project),
    "kernel_shared": lambda project: Blur(kernels(57)[0, 0], ODD, project=project),
    "identity": lambda project: Identity(ODD, project=project),
    "random_inpainting": lambda project: RandomInpainting(ODD, streams(), (0.2, 0.9), project=project),
    "grayscale": lambda project: Grayscale(ODD, project=project),
    "grayscale_of_kernels": lambda project: Compose(Grayscale(ODD), Blur(kernels(5), ODD), project=project),
    "kernels_of_grayscale": lambda project: Compose(
        Blur(kernels(11), (1, 37, 29)), Grayscale(ODD, (0.5, -0.3, 1.0)), project=project
    ),
    "weights": lambda project: Diagonal(np.random.default_rng(3).normal(size=(BATCH, *ODD)), ODD, project=project),
    "function": lambda project: LinearOperator(lambda x: 2 * x[..., ::2, 1::3].flip(-1), ODD, project=project),
    "function_with_adjoint": lambda project: LinearOperator(
        lambda x: x.cumsum(dim=-1) / 29, ODD, None, lambda y: y.flip(-1).cumsum(dim=-1).flip(-1) / 29, project=project
    ),
    "mask_after_kernels": lambda project: Compose(Inpainting(masks(), ODD), Blur(kernels(5), ODD), project=project),
    "kernels_after_boxes": lambda project: Compose(Blur(kernels(11), ODD), BoxInpainting(ODD, BOXES), project=project),
    "reduced_after_motion": lambda project: Compose(
        SuperResolution((3, 21, 35), 7), MotionBlur((3, 21, 35), streams(), 31, 0.7), project=project
    ),
}
every_operator = pytest.mark.parametrize("build", CASES.values(), ids=CASES)


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@every_operator
def test_dot_test(build: Build) -> None:
    operator = build("published")
    x, y = normal(operator.in_shape, 1), normal(operator.out_shape, 2)
    ax, aty = operator.forward(x), operator.adjoint(y)
    assert ax.shape == y.shape and aty.shape == x.shape
    for i in range(BATCH):
        gap = (ax[i] * y[i]).sum() - (x[i] * aty[i]).sum()
        assert gap.abs() <= 1e-13 * ax[i].norm() * y[i].norm()


@every_operator
def test_autograd_agrees_with_the_adjoint_and_the_forward_map(build: Build) -> None:
    operator = build("published")
    x, y = normal(operator.in_shape, 1).requires_grad_(), normal(operator.out_shape, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(operator.forward(x), x, y.detach())
    torch.testing.assert_close(gradient, operator.adjoint(y.detach()), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(operator.adjoint(y), y, x.detach())
    torch.testing.assert_close(gradient, operator.forward(x.detach()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sides", [(3, 3), (9, 9), (5, 9), (27, 1)])
def test_blur_passes_gradcheck(sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators.blur, "DIRECT_UP_TO", 5)  # both ways at sizes that gradcheck can take
    kernel = np.random.default_rng(1).normal(size=(2, *sides)) / 9
    operator = Blur(kernel, (1, 15, 7))
    x = normal((1, 15, 7), 1)[:2].requires_grad_()
    for linear_map in (operator.forward, operator.adjoint):
        assert torch.autograd.gradcheck(linear_map, (x,), fast_mode=True, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(linear_map, (x,), fast_mode=True)


@every_operator
def test_the_hessian_of_the_misfit_is_the_normal_map(build: Build) -> None:
    """Of |A x - y|^2 / 2: A* A, by differentiating twice, forwards over backwards too."""
    operator = build("published")
    x, direction, y = normal(operator.in_shape, 1), normal(operator.in_shape, 3), normal(operator.out_shape, 2)

    def misfit(x: Tensor) -> Tensor:
        return (operator.forward(x) - y).square().sum() / 2

    expected = operator.adjoint(operator.forward(direction))
    _, twice = torch.autograd.functional.vhp(misfit, x, direction)
    torch.testing.assert_close(twice, expected, rtol=0, atol=1e-12)
    _, forwards = torch.func.jvp(torch.func.grad(misfit), (x,), (direction,))
    torch.testing.assert_close(forwards, expected, rtol=0, atol=1e-12)


@every_operator
@pytest.mark.parametrize("project", ["published", "adjoint"])
def test_a_batch_equals_its_images_alone(build: Build, project: str) -> None:
    operator = build(project)
    x, y = normal(operator.in_shape, 1), normal(operator.out_shape, 2)
    chosen = [2, 0, 0]
    some = operator.select(chosen)
    for method, images in (("forward", (x,)), ("adjoint", (y,)), ("project", (x, y)), ("observation_mask", (y,))):
        together = getattr(operator, method)(*images)
        few = getattr(some, method)(*(image[chosen] for image in images))
        torch.testing.assert_close(few, together[chosen], rtol=0, atol=1e-13)
        for i in range(BATCH):
            alone = getattr(operator.select([i]), method)(*(image[i : i + 1] for image in images))
            torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-13)


@every_operator
def test_an_image_of_nan_leaves_the_others_alone(build: Build) -> None:
    operator = build("published")
    x = normal(operator.in_shape, 1)
    expected = operator.forward(x)
    x[1] = float("nan")
    y = operator.forward(x)
    torch.testing.assert_close(y[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-13)


@every_operator
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_results_have_the_type_of_the_input(build: Build, dtype: torch.dtype) -> None:
    operator = build("published")
    x, y = normal(operator.in_shape, 1, dtype), normal(operator.out_shape, 2, dtype)
    for result in (operator.forward(x), operator.adjoint(y), operator.project(x, y), operator.observation_mask(y)):
        assert result.dtype == dtype
    exact = operator.forward(x.double())
    error = (operator.forward(x).double() - exact).abs().max() / exact.abs().max()
    assert error < {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 2e-2}[dtype]


@every_operator
def test_to_keeps_the_operator(build: Build) -> None:
    operator = build("published")
    x = normal(operator.in_shape, 1, torch.float32)
    before = operator.forward(x)
    torch.testing.assert_close(operator.to("cpu", torch.float32).forward(x), before, rtol=0, atol=1e-6)
    torch.testing.assert_close(operator.forward(x), before, rtol=0, atol=0)


@every_operator
def test_textbook_gluing(build: Build) -> None:
    operator = build("adjoint")
    x, y = normal(operator.in_shape, 1), normal(operator.out_shape, 2)
    expected = x + operator.adjoint(y - operator.forward(x))
    torch.testing.assert_close(operator.project(x, y), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["masks", "gaussian_blur", "kernels_fft"])
def test_published_gluing_is_the_identity_where_shapes_agree(name: str) -> None:
    operator = CASES[name]("published")
    x, y = normal(operator.in_shape, 1), normal(operator.out_shape, 2)
    torch.testing.assert_close(operator.project(x, y), x - operator.forward(x) + y, rtol=0, atol=1e-13)


@every_operator
def test_gluing_leaves_an_image_that_agrees_as_it_is(build: Build) -> None:
    operator = build("published")
    x = normal(operator.in_shape, 1)
    torch.testing.assert_close(operator.project(x, operator.forward(x)), x, rtol=0, atol=1e-13)


@every_operator
def test_enlarge_shows_the_measurement_at_the_size_of_the_image(build: Build) -> None:
    operator = build("published")
    y = normal(operator.out_shape, 2)
    shown = operator.enlarge(y)
    assert shown.shape == (BATCH, *operator.in_shape)
    if operator.out_shape == operator.in_shape:
        assert torch.equal(shown, y)


def test_what_inpainting_measures_is_its_mask() -> None:
    operator = Inpainting(masks(), ODD)
    y = normal(ODD, 1, torch.float32)
    assert torch.equal(operator.observation_mask(y), torch.from_numpy(masks())[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(SuperResolution(EVEN, 8).observation_mask(normal((3, 4, 3), 1)), torch.ones(BATCH, 3, 4, 3))


def test_a_hole_may_hold_anything() -> None:
    mask = np.ones((4, 4))
    mask[1, 1] = 0
    x = torch.ones(1, 1, 4, 4)
    x[..., 1, 1] = float("nan")
    assert Inpainting(mask, (1, 4, 4)).forward(x).sum() == 15


def test_direct_and_fourier_blur_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Blur(kernels(11), ODD)
    x = normal(ODD, 1)
    by_fft = operator.forward(x), operator.adjoint(x)
    monkeypatch.setattr(operators.blur, "DIRECT_UP_TO", 11)
    for a, b in zip(by_fft, (operator.forward(x), operator.adjoint(x)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@every_operator
def test_shapes_that_do_not_fit(build: Build) -> None:
    operator = build("published")
    x = normal(operator.in_shape, 1)
    with pytest.raises(ValueError, match="it takes"):
        operator.forward(x[..., 1:])
    with pytest.raises(ValueError, match="it takes"):
        operator.adjoint(torch.zeros(BATCH, 2, *operator.out_shape[1:]))
    with pytest.raises(ValueError, match="floating point"):
        operator.forward(x.to(torch.uint8))


@pytest.mark.parametrize("name", ["masks", "boxes", "motion_blur", "kernels_fft"])
def test_another_number_of_images_than_masks_or_kernels(name: str) -> None:
    operator = CASES[name]("published")
    with pytest.raises(ValueError, match="built for 3"):
        operator.forward(normal(ODD, 1)[:2])
    assert operator.select([1]).forward(normal(ODD, 1)[:2]).shape == (2, *ODD)


class Grey(Operator):
    """A user's own operator: the mean of the channels."""

    def __init__(self, project: str = "published") -> None:
        super().__init__((3, 5, 4), (1, 5, 4), project=project)

    def _forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1, keepdim=True)


class Square(Grey):
    linear = False

    def _forward(self, x: Tensor) -> Tensor:
        return x.square().mean(dim=1, keepdim=True)


def test_an_operator_of_ones_own_needs_only_its_forward_map() -> None:
    operator = Grey()
    x, y = normal(operator.in_shape, 1), normal(operator.out_shape, 2).requires_grad_()
    torch.testing.assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum())
    torch.testing.assert_close(operator.project(x, y), x + operator.adjoint(y - operator.forward(x)))
    (gradient,) = torch.autograd.grad(operator.adjoint(y), y, x)
    torch.testing.assert_close(gradient, operator.forward(x))
    assert operator.enlarge(y).shape == (BATCH, 3, 5, 4)
    with torch.no_grad():
        assert not operator.adjoint(y).requires_grad


def test_a_map_that_is_not_linear_has_no_adjoint() -> None:
    x, y = normal((3, 5, 4), 1), normal((1, 5, 4), 2)
    assert Square().forward(x).shape == y.shape
    for method in (lambda: Square().adjoint(y), lambda: Square().project(x, y)):
        with pytest.raises(ValueError, match="not linear"):
            method()
