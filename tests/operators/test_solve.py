"""solve, pinv and prox against dense linear algebra: closed forms, conjugate gradients, and what users hand them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from operators import (
    Blur,
    BoxInpainting,
    Compose,
    Diagonal,
    GaussianBlur,
    Grayscale,
    Identity,
    Inpainting,
    MotionBlur,
    Operator,
    SuperResolution,
    gaussian_kernel,
    random_mask,
)

SHAPE = (2, 11, 7)
BATCH = 3
RHOS = torch.tensor([0.3, 2.0, 1e-3], dtype=torch.float64)


def streams() -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(BATCH)]


def masks() -> np.ndarray:
    return np.stack([random_mask(SHAPE, rng) for rng in streams()])


def lines(seed: int, *sides: int) -> np.ndarray:
    """A column times a row, of any signs and sum."""
    rng = np.random.default_rng(seed)
    return np.outer(rng.normal(size=sides[0]), rng.normal(size=sides[1]))


def kernels(*sides: int) -> np.ndarray:
    kernel = np.random.default_rng(1).uniform(size=(BATCH, *sides))
    return kernel / kernel.sum(axis=(1, 2), keepdims=True)


def pointed() -> np.ndarray:
    """Well-conditioned kernels: rounding does not grow over the iterations."""
    kernel = 0.5 * kernels(5, 3)
    kernel[:, 2, 1] += 1
    return kernel


def weights() -> np.ndarray:
    """Of both signs, one of them 0."""
    found = np.random.default_rng(4).uniform(0.3, 3.0, size=(BATCH, *SHAPE)) * np.sign(np.arange(SHAPE[2]) - 2.5)
    found[1, 0, 3, 1] = 0
    return found


class Grey(Operator):
    """An operator without a closed form: dimmed channels, mixed; the dimming differs from image to image."""

    per_image = ("dimming",)

    def __init__(self, dimming: Tensor) -> None:
        super().__init__(SHAPE, (1, *SHAPE[1:]))
        self.dimming = dimming

    def _forward(self, x: Tensor) -> Tensor:
        return (x * self.dimming.to(x)).sum(dim=1, keepdim=True)


class Jacobi(Grey):
    """The same with a preconditioner of its own."""

    used = 0

    def _preconditioner(self, r: Tensor, rho: Tensor) -> Callable[[Tensor], Tensor]:
        diagonal = self.dimming.to(r).square().sum(dim=1, keepdim=True) + rho
        self.used += 1
        return lambda u: u / diagonal


def dimming() -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).uniform(0.1, 1.0, size=(BATCH, *SHAPE)))


CLOSED: dict[str, Callable[[], Operator]] = {
    "masks": lambda: Inpainting(masks(), SHAPE),
    "mask_shared": lambda: Inpainting(masks()[0], SHAPE),
    "boxes": lambda: BoxInpainting(SHAPE, [(1, 2, 3, 4), (0, 0, 5, 5), (6, 1, 5, 2)]),
    "super_resolution": lambda: SuperResolution((2, 15, 6), 3),
    "super_resolution_whole": lambda: SuperResolution((1, 8, 8), 8),
    "gaussian_blur": lambda: GaussianBlur(SHAPE, 5, 1.2),
    "gaussian_blur_wide": lambda: GaussianBlur(SHAPE, 13, 0.8),
    "lines": lambda: Blur(np.stack([lines(seed, 5, 3) for seed in range(BATCH)]), SHAPE),
    "largest_lines": lambda: Blur(lines(3, 21, 13), SHAPE),
    "column": lambda: Blur(lines(4, 9, 1), SHAPE),
    "row": lambda: Blur(lines(5, 1, 9), SHAPE),
    "one_pixel": lambda: Blur([[2.5]], (1, 1, 1)),
    "identity": lambda: Identity(SHAPE),
    "reduced_after_gaussian": lambda: Compose(SuperResolution((2, 15, 6), 3), GaussianBlur((2, 15, 6), 5, 1.2)),
    "lines_after_lines": lambda: Compose(
        Blur(lines(3, 5, 7), SHAPE), Blur(np.stack([lines(seed, 5, 3) for seed in range(BATCH)]), SHAPE)
    ),
    "mask_after_mask": lambda: Compose(Inpainting(masks(), SHAPE), Inpainting(masks()[::-1].copy(), SHAPE)),
    "mask_after_identity": lambda: Compose(Inpainting(masks(), SHAPE), Identity(SHAPE)),
    "reduced_after_identity": lambda: Compose(SuperResolution((2, 15, 6), 3), Identity((2, 15, 6))),
    "grayscale": lambda: Grayscale(SHAPE, (0.5, -2.0)),
    "reduced_grayscale": lambda: Compose(SuperResolution((1, 15, 6), 3), Grayscale((2, 15, 6), (0.7, 0.2))),
    "grayscale_of_gaussian": lambda: Compose(Grayscale(SHAPE, (0.7, 0.2)), GaussianBlur(SHAPE, 5, 1.2)),
    "masked_grayscale": lambda: Compose(Inpainting(masks(), (1, *SHAPE[1:])), Grayscale(SHAPE, (0.7, 0.2))),
    "weights": lambda: Diagonal(weights(), SHAPE),
    "weighted_masks": lambda: Compose(Diagonal(weights(), SHAPE), Inpainting(masks(), SHAPE)),
}
ITERATED: dict[str, Callable[[], Operator]] = {
    "motion_blur": lambda: MotionBlur(SHAPE, streams(), 9, 0.7),
    "kernels": lambda: Blur(kernels(5, 3), SHAPE),
    "kernel_largest": lambda: Blur(kernels(21, 13)[0], SHAPE),
    "kernel_of_a_large_sum": lambda: Blur(3 * kernels(3, 5)[0], SHAPE),
    "both_kinds": lambda: Blur(np.stack([lines(0, 5, 3), kernels(5, 3)[0], lines(1, 5, 3)]), SHAPE),
    "mask_after_kernels": lambda: Compose(Inpainting(masks(), SHAPE), Blur(kernels(5, 3), SHAPE)),
    "mask_after_reduced": lambda: Compose(
        Inpainting(np.eye(5, 2) + np.eye(5, 2, -3), (2, 5, 2)), SuperResolution((2, 15, 6), 3)
    ),
    "kernels_after_mask": lambda: Compose(Blur(kernels(5, 3), SHAPE), Inpainting(masks(), SHAPE)),
    "kernels_after_identity": lambda: Compose(Blur(kernels(5, 3), SHAPE), Identity(SHAPE)),
    "reduced_after_motion": lambda: Compose(SuperResolution((2, 15, 6), 3), MotionBlur((2, 15, 6), streams(), 9, 0.7)),
    "kernels_of_grayscale": lambda: Compose(Blur(pointed(), (1, *SHAPE[1:])), Grayscale(SHAPE, (0.7, 0.2))),
    "grayscale_of_kernels": lambda: Compose(Grayscale(SHAPE, (0.7, 0.2)), Blur(pointed(), SHAPE)),
    "weighted_kernels": lambda: Compose(Diagonal(weights(), SHAPE), Blur(kernels(5, 3), SHAPE)),
    "weighted_reduced": lambda: Compose(Diagonal(weights()[:, :, :5, :2], (2, 5, 2)), SuperResolution((2, 15, 6), 3)),
    "own_after_kernels": lambda: Compose(Grey(dimming()), Blur(kernels(5, 3), SHAPE)),
    "own": lambda: Grey(dimming()),
    "own_preconditioned": lambda: Jacobi(dimming()),
}
closed = pytest.mark.parametrize("build", CLOSED.values(), ids=CLOSED)
iterated = pytest.mark.parametrize("build", ITERATED.values(), ids=ITERATED)
every = pytest.mark.parametrize("build", {**CLOSED, **ITERATED}.values(), ids={**CLOSED, **ITERATED})


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def matrix(operator: Operator, b: int) -> Tensor:
    """A of image b, by its columns."""
    size = int(np.prod(operator.in_shape))
    columns = torch.eye(size, dtype=torch.float64).view(size, *operator.in_shape)
    return operator.select([b]).forward(columns).flatten(1).T


def dense_solve(operator: Operator, r: Tensor, rhos: Tensor) -> Tensor:
    solved = []
    for b, rho in enumerate(rhos):
        a = matrix(operator, b)
        solved.append(torch.linalg.solve(a @ a.T + rho * torch.eye(len(a), dtype=a.dtype), r[b].flatten()))
    return torch.stack(solved).view_as(r)


def error(found: Tensor, expected: Tensor) -> float:
    """The largest relative error of an image."""
    gap = (found.double() - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return float(gap.max())


@every
def test_solve_equals_a_dense_solve(build: Callable[[], Operator]) -> None:
    operator = build()
    r = normal(operator.out_shape, 1)
    u = operator.solve(r, RHOS, tolerance=1e-10, iterations=500)
    assert u.shape == r.shape and u.dtype == r.dtype
    assert error(u, dense_solve(operator, r, RHOS)) < 1e-6
    assert error(operator.solve(r, 0.5, tolerance=1e-10), dense_solve(operator, r, torch.full((BATCH,), 0.5))) < 1e-6


@pytest.mark.parametrize("rho", [1e-5, 1e-7, 1e-9])
def test_little_damping_is_as_exact(rho: float) -> None:
    """Damping counts however small it is beside the eigenvalues, and nothing of A is cut off then."""
    for operator in (GaussianBlur((1, 20, 16), 13, 2.0), SuperResolution((2, 15, 6), 3)):
        r = normal(operator.out_shape, 1)
        expected = dense_solve(operator, r, torch.full((BATCH,), rho, dtype=torch.float64))
        assert error(operator.solve(r, rho), expected) < 1e-6


@closed
def test_pinv_is_the_pseudo_inverse(build: Callable[[], Operator]) -> None:
    operator = build()
    y = normal(operator.out_shape, 1)
    for b in range(BATCH):
        expected = np.linalg.pinv(matrix(operator, b).numpy(), rcond=1e-5) @ y[b].flatten().numpy()
        found = operator.pinv(y)[b].flatten()
        assert np.linalg.norm(found.numpy() - expected) < 1e-6 * np.linalg.norm(expected)


def test_pinv_without_a_closed_form() -> None:
    """Of an operator of full rank; and with a damping it is Tikhonov's."""
    operator = Grey(dimming())
    y = normal(operator.out_shape, 1)
    inverses = [torch.from_numpy(np.linalg.pinv(matrix(operator, b).numpy())) for b in range(BATCH)]
    expected = torch.stack([inverse @ image.flatten() for inverse, image in zip(inverses, y, strict=True)])
    assert error(operator.pinv(y), expected.view(BATCH, *SHAPE)) < 1e-2
    tikhonov = operator.adjoint(dense_solve(operator, y, RHOS))
    assert error(operator.pinv(y, RHOS), tikhonov) < 2e-3


@every
def test_prox_meets_its_optimality_condition(build: Callable[[], Operator]) -> None:
    """A* (A z - y) + rho (z - x) = 0, which has one solution."""
    operator = build()
    x, y, rho = normal(operator.in_shape, 1), normal(operator.out_shape, 2), RHOS[:, None, None, None]
    z = operator.prox(x, y, RHOS)
    gradient = operator.adjoint(operator.forward(z) - y) + rho * (z - x)
    scale = operator.adjoint(y - operator.forward(x)).flatten(1).norm(dim=1)
    assert z.shape == x.shape and float((gradient.flatten(1).norm(dim=1) / scale).max()) < 1e-2


@pytest.mark.parametrize("name", ["masks", "super_resolution", "gaussian_blur", "kernels", "own"])
def test_prox_is_the_minimiser_that_a_general_optimiser_finds(name: str) -> None:
    operator = {**CLOSED, **ITERATED}[name]().select([0])
    x, y, rho = normal(operator.in_shape, 1)[:1], normal(operator.out_shape, 2)[:1], 0.2

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(values).view_as(x).requires_grad_()
        loss = (y - operator.forward(z)).square().sum() + rho * (z - x).square().sum()
        (gradient,) = torch.autograd.grad(loss, z)
        return loss.item(), gradient.flatten().numpy()

    options = {"maxiter": 3000, "ftol": 1e-15, "gtol": 1e-9}
    best = scipy.optimize.minimize(objective, np.zeros(x.numel()), jac=True, method="L-BFGS-B", options=options)
    found = operator.prox(x, y, rho).flatten().numpy()
    np.testing.assert_allclose(found, best.x, rtol=0, atol=2e-3 * np.abs(best.x).max())
    assert objective(found)[0] < best.fun * (1 + 1e-5)


@iterated
@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_conjugate_gradients_end_within_their_tolerance(build: Callable[[], Operator], tolerance: float) -> None:
    operator = build()
    r = normal(operator.out_shape, 1)
    u = operator.solve(r, 0.05, tolerance=tolerance)
    left = r - operator.forward(operator.adjoint(u)) - 0.05 * u
    assert float((left.flatten(1).norm(dim=1) / r.flatten(1).norm(dim=1)).max()) <= tolerance * (1 + 1e-6)


class Counted(Grey):
    """Counts how often A was applied."""

    calls = 0

    def _forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super()._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.dimming.to(y)


def test_a_start_and_the_bound_of_iterations() -> None:
    operator = Counted(dimming())
    r = normal(operator.out_shape, 1)
    operator.solve(r, 0.01, tolerance=0.0, iterations=7)
    assert operator.calls == 7
    exact, operator.calls = dense_solve(operator, r, torch.full((BATCH,), 0.01)), 0
    u = operator.solve(r, 0.01, start=exact)  # one application sees that it is a solution
    assert operator.calls == 1 and torch.equal(u, exact)
    near = exact + 1e-2 * normal(operator.out_shape, 2)
    before = near.clone()
    early = [error(operator.solve(r, 0.01, start=first, tolerance=0.0, iterations=3), exact) for first in (None, near)]
    assert early[1] < 0.2 * early[0]
    assert torch.equal(near, before)


def test_nothing_left_to_solve_is_zero() -> None:
    for name in ("kernels", "own", "both_kinds", "super_resolution"):
        operator = {**CLOSED, **ITERATED}[name]()
        assert not operator.solve(torch.zeros(BATCH, *operator.out_shape), 0.1).any()


@every
def test_a_batch_equals_its_images_alone(build: Callable[[], Operator]) -> None:
    """Though they end after different numbers of iterations: each is left alone once it is finished."""
    operator = build()
    r, start = normal(operator.out_shape, 1), 0.1 * normal(operator.out_shape, 3)
    x = normal(operator.in_shape, 2)
    r[1] *= 100
    together = operator.solve(r, RHOS, start=start), operator.prox(x, r, RHOS), operator.pinv(r, RHOS)
    for b in range(BATCH):
        one, own = operator.select([b]), slice(b, b + 1)
        alone = one.solve(r[own], RHOS[own], start=start[own]), one.prox(x[own], r[own], RHOS[own])
        for found, expected in zip(together, (*alone, one.pinv(r[own], RHOS[own])), strict=True):
            assert error(found[own], expected) < 1e-9


@every
def test_an_image_of_nan_leaves_the_others_alone(build: Callable[[], Operator]) -> None:
    operator = build()
    r = normal(operator.out_shape, 1)
    expected = operator.solve(r, RHOS)
    r[1] = float("nan")
    assert error(operator.solve(r, RHOS)[[0, 2]], expected[[0, 2]]) < 1e-9


@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_a_hole_may_hold_anything(rho: float) -> None:
    operator = Inpainting(masks(), SHAPE)
    x, y = normal(SHAPE, 1), normal(SHAPE, 2)
    expected = operator.prox(x, y, rho), operator.pinv(y, rho)
    y = torch.where(operator.observation_mask(y) > 0, y, float("nan"))
    assert torch.equal(operator.prox(x, y, rho), expected[0]) and torch.equal(operator.pinv(y, rho), expected[1])


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_less_precision(build: Callable[[], Operator], dtype: torch.dtype) -> None:
    operator = build()
    x, y = normal(operator.in_shape, 1, dtype), normal(operator.out_shape, 2, dtype)
    z, expected = operator.prox(x, y, 1e-2), operator.prox(x.double(), y.double(), 1e-2)
    assert z.dtype == dtype and operator.solve(y, 1e-2).dtype == operator.pinv(y, 1e-2).dtype == dtype
    assert error(z, expected) < {torch.float32: 5e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}[dtype]


def test_prox_in_half_precision_beyond_the_range_of_its_solve() -> None:
    """(y - A x) / rho is above the largest float16."""
    operator = Inpainting(masks(), SHAPE)
    x, y = normal(SHAPE, 1, torch.float16), normal(SHAPE, 2, torch.float16)
    z = operator.prox(x, y, 1e-7)
    torch.testing.assert_close(z, torch.where(operator.observation_mask(y) > 0, y, x), rtol=1e-3, atol=1e-5)
    assert bool(torch.isfinite(operator.pinv(y, 1e-7)).all())


@pytest.mark.parametrize("name", ["masks", "super_resolution", "gaussian_blur", "motion_blur", "both_kinds", "own"])
def test_an_operator_in_another_precision_and_in_inference_mode(name: str) -> None:
    operator = {**CLOSED, **ITERATED}[name]()
    x, y = normal(operator.in_shape, 1, torch.float32), normal(operator.out_shape, 2, torch.float32)
    expected = operator.prox(x, y, RHOS)
    assert error(operator.to("cpu", torch.float32).prox(x, y, RHOS), expected.double()) < 5e-3
    fresh = {**CLOSED, **ITERATED}[name]()
    with torch.inference_mode():
        inside = (
            fresh.prox(x.clone(), y.clone(), RHOS.clone()),
            fresh.solve(y.clone(), RHOS),
            fresh.pinv(y.clone(), 1.0),
        )
    assert torch.equal(inside[0], expected) and torch.equal(inside[1], operator.solve(y, RHOS))
    assert torch.equal(inside[2], operator.pinv(y, 1.0)) and torch.equal(fresh.prox(x, y, RHOS), expected)


def test_results_have_no_graph() -> None:
    """Not even part of one, whose derivative would be wrong."""
    operator = Blur(kernels(5, 3), SHAPE)
    x, y = normal(SHAPE, 1).requires_grad_(), normal(SHAPE, 2).requires_grad_()
    rho = torch.tensor(0.1, requires_grad=True)
    for result in (operator.prox(x, y, rho), operator.pinv(y, rho), operator.solve(y, rho)):
        assert not result.requires_grad


@pytest.mark.parametrize("both", [False, True])
def test_copies_and_new_kernels_have_their_own_closed_form(both: bool) -> None:
    first, second = lines(0, 5, 3), kernels(5, 3)[0] if both else lines(1, 5, 3)
    r = normal(SHAPE, 1)[:2]
    operator = Blur(np.stack([first, second]), SHAPE)
    expected = operator.solve(r, 0.1)
    assert error(operator.select([1, 0]).solve(r[[1, 0]], 0.1), expected[[1, 0]]) < 1e-9
    operator.kernel = Blur(second, SHAPE).kernel
    assert error(operator.solve(r[1:], 0.1), expected[1:]) < 1e-9
    operator.kernel.copy_(torch.from_numpy(first))
    assert error(operator.solve(r[:1], 0.1), expected[:1]) < 1e-9


def test_a_kernel_of_float32_keeps_its_closed_form() -> None:
    """Rounding does not make a Gaussian another kind of kernel."""
    kernel = gaussian_kernel(31, 3.0)
    operator, exact = Blur(kernel.astype(np.float32), (1, 40, 40)), Blur(kernel, (1, 40, 40))
    y = exact.forward(normal((1, 40, 40), 1))
    assert error(operator.solve(y, 1e-4, iterations=0), exact.solve(y, 1e-4, iterations=0)) < 1e-3


def test_a_kernel_that_is_nearly_a_column_times_a_row_is_taken_as_it_is() -> None:
    kernel = gaussian_kernel(7, 1.0) + 1e-5 * kernels(7, 7)[0]
    operator, r, rhos = Blur(kernel, SHAPE), normal(SHAPE, 1), torch.full((BATCH,), 1e-2)
    assert error(operator.solve(r, rhos, tolerance=1e-9, iterations=500), dense_solve(operator, r, rhos)) < 1e-6


def test_a_small_kernel_is_solved_as_well_as_a_normalised_one() -> None:
    """Of y = k x with k = 1e-5 k', (A A* + 1e-10 rho)^-1 is 1e10 times that of k'."""
    r = normal(SHAPE, 1)
    small, usual = (Blur(scale * kernels(5, 3), SHAPE) for scale in (1e-5, 1.0))
    found = small.solve(r, 1e-12, iterations=25), usual.solve(r, 1e-2, iterations=25)
    torch.testing.assert_close(1e-10 * found[0], found[1], rtol=1e-4, atol=1e-4)


class Dimmed(Operator):
    """Pixels are dimmed, some to nothing: A A* is singular, and A has no closed form."""

    def __init__(self) -> None:
        super().__init__(SHAPE, SHAPE)
        levels = torch.linspace(-1, 1, 77, dtype=torch.float64)
        self.levels = torch.where(levels > 0.2, levels, 0.0).view(1, *SHAPE[1:])

    def _forward(self, x: Tensor) -> Tensor:
        return self.levels.to(x) * x


def test_a_singular_operator_without_damping() -> None:
    operator = Dimmed()
    x = normal(SHAPE, 1)
    seen = torch.where(operator.levels > 0, x, 0.0)
    assert error(operator.pinv(operator.forward(x)), seen) < 5e-3
    for name in ("float32", "float64"):
        y = normal(SHAPE, 2, getattr(torch, name))  # with noise where A gives nothing
        assert bool(torch.isfinite(operator.pinv(y)).all())
        assert float(operator.pinv(y, 0.1).abs().max()) < 10


class Square(Grey):
    linear = False

    def _forward(self, x: Tensor) -> Tensor:
        return super()._forward(x.square())


def one_line(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rho", [-0.1, float("nan"), float("inf"), [0.1, -1e-9, 0.1], [0.1, 0.2], [float("nan")] * 3, [], [-0.123456] * 99]
)
def test_a_faulty_rho(rho: float | list[float]) -> None:
    operator, value = GaussianBlur(SHAPE, 5, 1.2), torch.tensor(rho) if isinstance(rho, list) else rho
    y = normal(SHAPE, 1)
    for call in (lambda: operator.solve(y, value), lambda: operator.pinv(y, value), lambda: operator.prox(y, y, value)):
        one_line(call, "^rho is .*; it must be one finite number, 0 or more, or one for each of 3 images$")


def test_faulty_images() -> None:
    operator, y = Inpainting(masks(), SHAPE), normal(SHAPE, 1)
    one_line(lambda: operator.solve(y[:2], 0.1), "a batch of 2 measurements, but it was built for 3")
    one_line(lambda: operator.solve(y[..., 1:], 0.1), r"it takes \(B, 2, 11, 7\)")
    one_line(lambda: operator.pinv(y.to(torch.uint8)), "it takes floating point")
    one_line(lambda: operator.prox(y[:, :1], y, 0.1), "images of shape")
    one_line(lambda: operator.solve(y, 0.1, start=y[:2]), r"start of shape \(2, 2, 11, 7\); it must be that of")
    square = Square(dimming())
    one_line(lambda: square.solve(normal(square.out_shape, 1), 0.1), "Square is not linear: it has no solve")
    one_line(lambda: square.pinv(normal(square.out_shape, 1)), "Square is not linear")
    one_line(lambda: square.prox(y, normal(square.out_shape, 1), 0.1), "Square is not linear")
