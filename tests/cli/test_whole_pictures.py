"""Pictures that keep their size: `--whole`, and measurements of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data

from pag_inverse.cli.solve import main

SIZES = {"a": (65, 83), "b": (80, 96), "c": (65, 83)}  # rows, columns


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, (name, (height, width)) in enumerate(SIZES.items()):
        PIL.Image.fromarray(skimage.data.astronaut()[40 * k :][:height, :width]).save(folder / f"{name}.png")
    return folder


def sides(path: Path) -> tuple[int, int]:
    with PIL.Image.open(path) as picture:
        return picture.height, picture.width


@pytest.mark.parametrize("task", ["gaussian_deblur", "super_resolution"])
def test_a_folder_of_pictures_of_several_sizes(pictures: Path, task: str) -> None:
    assert main(["--task", task, "--input", str(pictures), "--whole", "--steps", "2", "--output", "out"]) == 0
    for name, size in SIZES.items():
        assert sides(Path("out", f"{name}_restoration.png")) == size
    measured = np.load(Path("out", "a_measurement.npy")).shape
    assert measured == ((3, 65, 83) if task == "gaussian_deblur" else (3, 9, 11))


def test_a_picture_does_not_depend_on_those_beside_it(pictures: Path) -> None:
    given = ["--task", "gaussian_deblur", "--solver", "dps", "--whole", "--steps", "2"]
    assert main([*given, "--input", str(pictures), "--batch-size", "1", "--output", "all"]) == 0
    assert main([*given, "--input", str(pictures / "c.png"), "--output", "one"]) == 0
    assert Path("all", "c_restoration.png").read_bytes() == Path("one", "c_restoration.png").read_bytes()


def test_a_measurement_of_odd_sides(pictures: Path) -> None:
    given = ["--task", "super_resolution", "--measurement", str(pictures / "a.png"), "--sigma", "0.02", "--steps", "1"]
    assert main([*given, "--output", "out"]) == 0
    assert sides(Path("out", "a_restoration.png")) == (520, 664)
