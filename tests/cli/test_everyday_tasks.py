"""The solve command with the tasks beside the paper's four: simulated, and with a measurement of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pag_inverse.cli.solve import main
from pag_inverse.data.images import bundled_photograph, prepare
from pag_inverse.settings import PAPER_TASKS, TASKS


def photograph(side: int = 64) -> np.ndarray:
    image = prepare(bundled_photograph("astronaut"), side)
    return np.round(127.5 * (image.transpose(1, 2, 0) + 1)).astype(np.uint8)


@pytest.mark.parametrize("task", [task for task in TASKS if task not in PAPER_TASKS])
def test_it_restores_the_bundled_photograph(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / task
    assert main(["--task", task, "--steps", "1", "--size", "64", "--output", str(folder)]) == 0
    said = capsys.readouterr()
    assert "restoration" in said.out and (folder / "astronaut_restoration.png").exists()
    assert PIL.Image.open(folder / "astronaut_restoration.png").size == (64, 64)
    assert ("30 photons at white" in said.err) == (task == "poisson_denoise")
    array = np.load(folder / "astronaut_measurement.npy")
    assert array.ndim == 3 and np.isfinite(array).all()


def own(path: Path, task: str) -> tuple[list[str], tuple[int, int]]:
    """A measurement of one's own, the arguments that go with it, and the size of the picture it is of."""
    picture = photograph()
    if task == "jpeg":
        file = path / "own.jpg"
        PIL.Image.fromarray(picture).save(file, quality=10)
        return ["--measurement", str(file)], (64, 64)
    image, further, size = PIL.Image.fromarray(picture), [], (64, 64)
    if task == "colorize":
        image = image.convert("L")
    if task == "deblur_and_upscale":
        image, size = image.resize((20, 16)), (80, 64)
    if task == "poisson_denoise":
        further = ["--set", "peak=50"]
    if task == "inpaint":
        mask = np.full((64, 64), 255, np.uint8)
        mask[10:20, 10:20] = 0
        PIL.Image.fromarray(mask).save(path / "mask.png")
        further = ["--mask", str(path / "mask.png")]
    image.save(path / "own.png")
    return ["--measurement", str(path / "own.png"), *further], size


@pytest.mark.parametrize(
    "task",
    [
        "denoise",
        "inpaint",
        "colorize",
        "deblur_and_upscale",
        "jpeg",
        "overexposed",
        "poisson_denoise",
    ],
)
def test_a_measurement_of_ones_own(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, size = own(tmp_path, task)
    folder = tmp_path / "out"
    given = ["--task", task, *arguments, "--steps", "1", "--output", str(folder)]
    assert main(given) == 0, capsys.readouterr().err
    assert PIL.Image.open(folder / "own_restoration.png").size == size
    assert ("50 photons at white" in capsys.readouterr().err) == (task == "poisson_denoise")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "poisson_denoise", "--sigma", "0.1"], "sigma is 0.1, but the noise is poisson: give a peak"),
        (["--task", "denoise", "--set", "peak=50"], "peak is 50.0; it is of poisson noise alone: give a sigma"),
        (["--task", "denoise", "--set", "peak=0.01"], "peak is 0.01; it must be greater than or equal to 0.1"),
        (["--task", "poisson_denoise", "--sigma", "0.1", "--set", "peak=50"], "--sigma and peak are two noises"),
        (["--task", "jpeg", "--solver", "ddnm"], "has no row ddnm"),
        (["--task", "denoise", "--dataset", "ffhq"], "unknown dataset 'ffhq'"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--size", "64", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not (tmp_path / "out").exists()
