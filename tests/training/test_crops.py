"""Crops depend on the seed, the step and the process alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from pag_inverse.training.crops import Crops, split_held_out

SIZES = ((32, 0.5), (64, 0.5))


def test_crops_depend_on_seed_and_step_alone(photographs: Path) -> None:
    files = sorted(photographs.iterdir())
    crops, again = Crops(files, SIZES, batch=4, seed=3), Crops(files, SIZES, batch=4, seed=3)
    shapes = {tuple(crops(k).shape) for k in range(20)}
    assert shapes == {(4, 3, 32, 32), (1, 3, 64, 64)}  # as many pixels in either
    assert all(torch.equal(crops(k), again(k)) for k in (7, 2))
    assert not np.array_equal(crops(2), crops(3))


def test_of_several_processes_each_has_crops_of_its_own_and_one_side(photographs: Path) -> None:
    files = sorted(photographs.iterdir())
    first, second = (Crops(files, SIZES, batch=4, seed=3, rank=rank) for rank in (0, 1))
    assert all(first(k).shape == second(k).shape for k in range(20))
    assert not torch.equal(first(0), second(0))


def test_recoloured_crops_have_the_same_grey_and_more_colour(tmp_path: Path) -> None:
    picture = np.empty((32, 32, 3), np.uint8)
    picture[:] = (120, 130, 140)
    PIL.Image.fromarray(picture).save(tmp_path / "blueish.png")
    data = Crops([tmp_path / "blueish.png"], ((32, 1.0),), batch=64, seed=0, recolour=0.5)
    colours = (data(0)[..., 0, 0] + 1) * 127.5
    spread = colours.amax(1) - colours.amin(1)
    plain = (colours == torch.tensor([120.0, 130.0, 140.0])).all(1)
    assert 0.3 < plain.float().mean() < 0.7
    assert torch.allclose(colours.mean(1), torch.tensor(130.0), atol=0.01)
    assert float(spread.min()) > 19.9 and 60 < float(spread.max()) <= 80
    assert len({tuple(c.argsort().tolist()) for c in colours}) == 6  # every order of the channels


def test_held_out_pictures_are_not_trained_on(photographs: Path, tmp_path: Path) -> None:
    training, held_out = split_held_out(photographs)
    assert training and held_out and not set(training) & set(held_out)
    assert len(training) + len(held_out) == 4
    with pytest.raises(ValueError, match="at least 2"):
        split_held_out(tmp_path)


def test_pictures_stand_in_the_order_of_their_names(photographs: Path, tmp_path: Path) -> None:
    """The order decides which are held out; two of one name in different folders are two."""
    names = ["a (1).png", "a-1.png", "a.png", "a/a.png", "a/b.png", "b/a.png", "c.png"]
    for name in [*names, ".hidden.png", ".hidden/a.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(photographs / "coffee.png", tmp_path / name)
    (tmp_path / "d").symlink_to(photographs)
    training, held_out = split_held_out(tmp_path, share=0.5)
    linked = [f"d/{name}.png" for name in ("astronaut", "chelsea", "coffee", "rocket")]
    expected = sorted(tmp_path / name for name in [*names, *linked])
    assert held_out == expected[::2] and training == expected[1::2]


def test_shares_of_any_sum_choose_a_side(photographs: Path) -> None:
    crops = Crops(sorted(photographs.iterdir()), ((32, 0.1), (64, 0.1), (96, 0.1)), batch=1, seed=0)
    crops.shares = crops.shares * (1 - 0.9)  # as rounding does, and more
    assert {crops(k).shape[-1] for k in range(30)} <= {32, 64, 96}
