"""One operator after another: what holds of the two together, by hand and by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import (
    Blur,
    BoxInpainting,
    Compose,
    Crop,
    Diagonal,
    GaussianBlur,
    Identity,
    Inpainting,
    MotionBlur,
    Operator,
    SuperResolution,
    check_settings,
    make_operator,
    random_mask,
)

SHAPE = (3, 24, 36)
BOXES = [(1, 2, 9, 5), (0, 0, 3, 4)]
BLUR = {"name": "gaussian_blur", "settings": {"kernel_size": 9, "std": 1.6}}
REDUCED = {"name": "super_resolution", "settings": {"scale": 4}}


def streams(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_second_argument_acts_first() -> None:
    blur, reduced = GaussianBlur(SHAPE, 9, 1.6), SuperResolution(SHAPE, 4)
    x = normal(SHAPE, 1)
    both = Compose(reduced, blur)
    assert both.in_shape == SHAPE and both.out_shape == (3, 6, 9) and both.linear
    assert torch.equal(both.forward(x), reduced.forward(blur.forward(x)))


def test_names_are_listed_in_the_order_in_which_they_act() -> None:
    x = normal(SHAPE, 1)
    mask = {"name": "box_inpainting", "settings": {"position": [1, 2, 3, 4]}}
    named = make_operator("compose", SHAPE, {"operators": [BLUR, REDUCED, mask]}, streams(0, 1))
    y = SuperResolution(SHAPE, 4).forward(GaussianBlur(SHAPE, 9, 1.6).forward(x))
    assert torch.equal(named.forward(x), BoxInpainting((3, 6, 9), [(1, 2, 3, 4)]).forward(y))
    inside = {"name": "compose", "settings": {"operators": [REDUCED, mask]}}
    nested = make_operator("compose", SHAPE, {"operators": [BLUR, inside]}, streams(0, 1))
    assert torch.equal(nested.forward(x), named.forward(x))


def test_what_is_measured_is_what_the_outer_operator_measures() -> None:
    y = normal(SHAPE, 1)
    hole = BoxInpainting(SHAPE, BOXES)
    assert torch.equal(Compose(hole, GaussianBlur(SHAPE, 9, 1.6)).observation_mask(y), hole.observation_mask(y))
    assert Compose(GaussianBlur(SHAPE, 9, 1.6), hole).observation_mask(y).all()
    weights = np.ones(SHAPE)
    weights[:, 20] = 0
    seen = Compose(Diagonal(weights, SHAPE), hole).observation_mask(y)
    assert torch.equal(seen, hole.observation_mask(y) * torch.from_numpy(weights))


def test_gluing_is_that_of_the_parts_one_after_the_other() -> None:
    x, y = normal(SHAPE, 1), normal((3, 6, 9), 2)
    blur, reduced = GaussianBlur(SHAPE, 9, 1.6), SuperResolution(SHAPE, 4)
    both = Compose(reduced, blur)
    assert torch.equal(both.glue(y), reduced.enlarge(y))
    torch.testing.assert_close(both.project(x, y), x + reduced.enlarge(y - both.forward(x)))
    textbook = Compose(SuperResolution(SHAPE, 4, project="adjoint"), blur)
    assert torch.equal(textbook.glue(y), reduced.adjoint(y))
    assert torch.equal(Compose(reduced, blur, project="adjoint").glue(y), both.adjoint(y))


def test_arrays_of_each_image_follow_and_are_saved_under_different_names() -> None:
    kernels = MotionBlur(SHAPE, streams(0, 1), 9, 0.5), MotionBlur(SHAPE, streams(2, 3), 9, 0.5)
    hole = BoxInpainting(SHAPE, BOXES)
    operator = Compose(Compose(kernels[1], hole), kernels[0])
    saved = operator.arrays(1)
    assert list(saved) == ["kernel_1", "mask", "kernel_2"]
    again = Compose(
        Compose(Blur(saved["kernel_2"], SHAPE), Inpainting(saved["mask"], SHAPE)), Blur(saved["kernel_1"], SHAPE)
    )
    x = normal(SHAPE, 1)
    assert torch.equal(again.forward(x[1:]), operator.forward(x)[1:])
    swapped = operator.select([1, 0])
    assert torch.equal(swapped.forward(x[[1, 0]]), operator.forward(x)[[1, 0]])
    assert operator.to("cpu", torch.float32).inner.kernel.dtype == torch.float32


def test_a_closed_form_needs_no_iteration() -> None:
    """The answer does not depend on how many iterations are allowed."""
    cases: list[Operator] = [
        Compose(SuperResolution(SHAPE, 4), GaussianBlur(SHAPE, 9, 1.6)),
        Compose(Compose(SuperResolution((3, 12, 18), 3), SuperResolution(SHAPE, 2)), GaussianBlur(SHAPE, 9, 1.6)),
        Compose(Inpainting(random_mask(SHAPE, streams(0)[0]), SHAPE), BoxInpainting(SHAPE, BOXES)),
    ]
    for operator in cases:
        r = normal(operator.out_shape, 1)
        u = operator.solve(r, 0.1, iterations=0)
        torch.testing.assert_close(operator.forward(operator.adjoint(u)) + 0.1 * u, r)


class Square(Operator):
    linear = False

    def __init__(self, in_shape: tuple[int, int, int]) -> None:
        super().__init__(in_shape, in_shape)

    def _forward(self, x: Tensor) -> Tensor:
        return x.square()


def test_constants_go_to_the_device_of_the_arrays() -> None:
    """An operator without arrays has no device: the closed forms of a composition take that of the other's arrays."""
    weights = Diagonal(torch.full((4, 6), 0.5), (3, 4, 6))
    for inner in (Identity((3, 4, 6)), Crop((3, 8, 8), (4, 6))):
        gram = Compose(weights.to("meta", torch.float32), inner)._gram()
        assert gram is not None and gram.device.type == "meta"
    entries = Compose(Identity((3, 4, 6)), weights.to("meta", torch.float32))._entries()
    assert entries is not None and entries.device.type == "meta"


def test_it_is_linear_where_both_are() -> None:
    x, blur = normal(SHAPE, 1), GaussianBlur(SHAPE, 9, 1.6)
    for operator in (Compose(Square(SHAPE), blur), Compose(blur, Square(SHAPE))):
        assert not operator.linear and operator.forward(x).shape == x.shape
        with pytest.raises(ValueError, match="Compose is not linear: it has no adjoint"):
            operator.adjoint(x)


def test_operators_that_do_not_fit() -> None:
    blur = GaussianBlur(SHAPE, 9, 1.6)
    with pytest.raises(ValueError, match=r"GaussianBlur takes images of \(3, 24, 36\), but SuperResolution gives \(3,"):
        Compose(blur, SuperResolution(SHAPE, 4))
    with pytest.raises(ValueError, match=r"a str cannot be composed; it must be an operators\.Operator"):
        Compose(blur, "gaussian_blur")  # type: ignore[arg-type]


def test_a_batch_that_a_part_was_not_built_for() -> None:
    operator = Compose(GaussianBlur(SHAPE, 9, 1.6), BoxInpainting(SHAPE, BOXES))
    for call in (operator.forward, operator.adjoint, operator.observation_mask):
        with pytest.raises(ValueError, match=r"BoxInpainting: a batch of 1 .*, but it was built for 2"):
            call(normal(SHAPE, 1)[:1])
    with pytest.raises(ValueError, match="image 2 of a batch of 2; it must be from 0 to 1"):
        operator.select([2])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([BLUR], "operators is .*; it must list at least two operators"),
        ([BLUR, {"name": "super_resolution"}], "operators.1.settings: scale is missing"),
        (
            [{**BLUR, "settings": {"kernel_size": 9, "std": -1.0}}, REDUCED],
            "operators.0.settings: std is -1.0; it must be",
        ),
        ([BLUR, {**REDUCED, "scale": 4}], "operators.1: scale is an unknown key; allowed: name, settings"),
        ([BLUR, {"name": "zoom"}], "operators.1.settings: unknown operator 'zoom'; there are box_inpainting"),
        ([BLUR, "super_resolution"], "operators.1 is 'super_resolution'; it must be a valid dictionary"),
        (BLUR, "operators is .*; it must be a valid tuple"),
        (
            [BLUR, {"name": "compose", "settings": {"operators": [BLUR, {"name": "super_resolution"}]}}],
            "operators.1.settings.operators.1.settings: scale is missing",
        ),
    ],
)
def test_a_fault_names_its_place(parts: object, message: str) -> None:
    for check in (
        lambda: check_settings("compose", {"operators": parts}, "mine.yaml: operator.settings"),
        lambda: make_operator("compose", SHAPE, {"operators": parts}, streams(0)),
    ):
        with pytest.raises(ValueError, match=message) as error:
            check()
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"^mine\.yaml: operator.settings"):
        check_settings("compose", {"operators": parts}, "mine.yaml: operator.settings")


def test_sizes_that_a_later_part_cannot_take_are_an_error() -> None:
    with pytest.raises(ValueError, match="scale is 4; it is a whole number from 1 to 2, the smaller side"):
        make_operator("compose", SHAPE, {"operators": [REDUCED] * 3}, streams(0))
