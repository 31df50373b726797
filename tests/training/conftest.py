from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pag_inverse.cli import train as command
from pag_inverse.data.images import bundled_photograph, prepare, write_png

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four photographs of 96 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        write_png(folder / f"{name}.png", prepare(bundled_photograph(name), 96))
    return folder


@pytest.fixture
def pictures(photographs: Path, tmp_path: Path) -> Path:
    """The photographs once more, to be changed."""
    return Path(shutil.copytree(photographs, tmp_path / "pictures"))


@pytest.fixture(scope="session")
def short_run(photographs: Path) -> Arguments:
    """The arguments of the smallest run: short_run(output, *further)."""

    def arguments(output: Path, *further: object, kind: str = "autoencoder", steps: int = 2) -> list[str]:
        run = ("--kind", kind, "--data", photographs, "--output", output, "--steps", steps)
        return [str(word) for word in (*run, "--batch", 1, "--crops", "32:1", "--save-every", 0, *further)]

    return arguments


@pytest.fixture(scope="session")
def finished(short_run: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps, not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert command.main(short_run(folder)) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """The finished run once more, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
