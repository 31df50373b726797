"""A crop: exact, and invisible to a solve behind it."""

from __future__ import annotations

import pytest
import torch

from operators import Compose, Crop, GaussianBlur, SuperResolution
from operators.super_resolution import bicubic_matrix

CANVAS = (3, 64, 48)


def test_the_part_lies_in_the_middle() -> None:
    x = torch.arange(5 * 4.0).reshape(1, 1, 5, 4)
    assert Crop((1, 5, 4), (2, 3)).forward(x).tolist() == x[..., 1:3, 0:3].tolist()


def test_the_adjoint_puts_it_back_in_its_place() -> None:
    crop, draw = Crop(CANVAS, (33, 41)), torch.Generator().manual_seed(0)
    x = torch.randn(2, *CANVAS, dtype=torch.float64, generator=draw)
    y = torch.randn(2, 3, 33, 41, dtype=torch.float64, generator=draw)
    assert (crop.forward(x) * y).sum().item() == pytest.approx((x * crop.adjoint(y)).sum().item(), rel=1e-12)
    assert torch.equal(crop.forward(crop.adjoint(y)), y)


def test_a_solve_behind_a_crop_is_that_of_the_picture() -> None:
    blur, draw = GaussianBlur((3, 33, 41), 9, 1.5), torch.Generator().manual_seed(0)
    y = torch.randn(1, 3, 33, 41, dtype=torch.float64, generator=draw)
    whole = Compose(blur, Crop(CANVAS, (33, 41)))
    assert torch.equal(whole.solve(y, 0.01), blur.solve(y, 0.01))
    assert not whole.prox(torch.zeros(1, *CANVAS, dtype=torch.float64), y, 0.01)[..., :15, :].any()  # the margin stays


@pytest.mark.parametrize("size", [(65, 48), (0, 3), (3,)])
def test_a_part_that_does_not_lie_in_the_image(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must lie in the image of \(64, 48\)"):
        Crop(CANVAS, size)  # type: ignore[arg-type]


def test_super_resolution_of_sides_that_do_not_divide() -> None:
    """The last pixel of the measurement sees the image continued by its mirror, as all pixels at a border do."""
    operator = SuperResolution((1, 21, 9), 4)
    assert operator.out_shape == (1, 6, 3)
    x = torch.randn(1, 1, 21, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mirrored = torch.cat([x, x.flip(-2)[..., :3, :]], dim=-2)
    mirrored = torch.cat([mirrored, mirrored.flip(-1)[..., :3]], dim=-1)
    rows, columns = (torch.from_numpy(bicubic_matrix(side, 4)) for side in (24, 12))
    inner = (rows @ mirrored @ columns.T)[..., :4, :1]  # far from the far border, where the two mirrors differ
    assert torch.allclose(operator.forward(x)[..., :4, :1], inner, atol=1e-12)
    assert torch.allclose(operator.forward(torch.ones_like(x)), torch.ones(1, 1, 6, 3, dtype=torch.float64))
    assert operator.enlarge(operator.forward(x)).shape == x.shape
