"""A user's own linear function: one line, and what is said where it is not what it should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, LinearOperator

SHAPE = (3, 12, 10)


def images(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_other(x: Tensor) -> Tensor:
    return x[..., ::2, ::2]


def spread(y: Tensor) -> Tensor:
    x = y.new_zeros((len(y), *SHAPE))
    x[..., ::2, ::2] = y
    return x


def test_one_line_makes_an_operator() -> None:
    operator = LinearOperator.from_function(every_other, SHAPE)
    x, y = images(1), images(2, (3, 6, 5))
    assert operator.out_shape == (3, 6, 5) and operator.linear
    assert torch.equal(operator.forward(x), every_other(x)) and torch.equal(operator.adjoint(y), spread(y))
    torch.testing.assert_close(operator.solve(y, 0.5, tolerance=1e-10), y / 1.5)


def test_a_function_of_numpy_has_a_gradient_by_its_adjoint() -> None:
    def outside(function: object) -> object:
        return lambda x: function(torch.from_numpy(x.detach().numpy().copy()))  # type: ignore[operator]

    operator = LinearOperator.from_function(outside(every_other), SHAPE, (3, 6, 5), outside(spread))  # type: ignore[arg-type]
    x, y = images(1).requires_grad_(), images(2, (3, 6, 5))
    (gradient,) = torch.autograd.grad(operator.forward(x), x, y)
    assert torch.equal(gradient, spread(y))


def test_a_module_moves_with_the_operator() -> None:
    layer = torch.nn.Conv2d(3, 2, 3, bias=False).double()
    operator = LinearOperator(layer.float(), SHAPE)
    assert operator.out_shape == (2, 10, 8)
    assert operator.to("cpu", torch.float64).forward(images(1)).dtype == torch.float64
    assert layer.weight.dtype == torch.float32


def test_an_adjoint_that_is_given_is_the_one_that_is_used() -> None:
    blur = GaussianBlur(SHAPE, 5, 1.0)
    operator = LinearOperator.from_function(blur.forward, SHAPE, SHAPE, blur.adjoint)
    assert torch.equal(operator.adjoint(images(1)), blur.adjoint(images(1)))


WRONG = {
    "affine": ((lambda x: x + 1, SHAPE), "forward is not linear"),
    "square": ((torch.square, SHAPE), "forward is not linear"),
    "mixes the batch": ((lambda x: x - x.mean(dim=0, keepdim=True), SHAPE), "images of a batch are mixed"),
    "another shape": (
        (every_other, SHAPE, SHAPE),
        r"forward gives \(2, 3, 6, 5\) for 2 images; it must give \(2, \*\(3,",
    ),
    "no image": (
        (lambda x: x.flatten(1), SHAPE),
        r"forward gives torch.float32 \(2, 360\) on cpu; it must give a tensor",
    ),
    "another type": ((lambda x: x.double(), SHAPE), r"forward gives torch.float64 .*; it must give a tensor"),
    "no tensor": ((lambda x: x.numpy(), SHAPE), "forward gives a ndarray; it must give a tensor"),
    "fails": ((lambda x: x @ x, SHAPE), r"forward fails for a torch tensor \(2, 3, 12, 10\), float32: "),
    "of numpy": ((lambda x: np.flip(x, -1), SHAPE), "forward fails for a torch tensor "),
    "no gradient": ((lambda x: x.detach(), SHAPE), "forward has no gradient .*; give its adjoint"),
    "wrong adjoint": (
        (lambda x: x.roll(1, -1), SHAPE, None, lambda y: y.roll(1, -1)),
        "adjoint is not that of forward",
    ),
    "scaled adjoint": ((every_other, SHAPE, None, lambda y: 4 * spread(y)), "leave it out, and autograd finds it"),
    "adjoint of another shape": (
        (every_other, SHAPE, None, lambda y: y),
        "adjoint gives .* for 2 measurements; it must",
    ),
    "shape": ((every_other, (12, 10)), "channels, height, width"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_what_is_not_a_linear_function_is_one_clear_line(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        LinearOperator.from_function(*arguments)
    assert "\n" not in str(error.value)


def test_a_function_that_is_nothing_is_linear_too() -> None:
    operator = LinearOperator.from_function(lambda x: 0 * x, SHAPE)
    assert not operator.forward(images(1)).any()
    assert np.isfinite(operator.pinv(images(1)).numpy()).all()
