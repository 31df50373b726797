"""A wheel of the project holds everything it needs, puts down two packages, and runs from an empty folder."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"operators": "operators", "pag_inverse": "pag_inverse", "configs": "pag_inverse/configs"}
SOURCES = ("setup.cfg", "pyproject.toml", "LICENSE", "README.md")


def run(*command: object, folder: Path, path: Path | None = None) -> str:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    environment.pop("PYTHONPATH", None)
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy of the sources, offline, and install it alone into a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "target"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source / name)
    run(
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        source,
        folder=folder,
    )
    (wheel,) = folder.glob("pag_inverse-*.whl")
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, folder=folder)
    return target


def files_below(folder: Path) -> set[str]:
    found = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(folder).as_posix() for p in found}


def test_two_packages_are_put_down_and_nothing_else(installed):
    put_down = {name for name in os.listdir(installed) if not name.endswith(".dist-info")}
    assert put_down - {"bin"} == {"operators", "pag_inverse"}


@pytest.mark.parametrize("source, target", PACKAGES.items())
def test_every_file_of_the_sources_is_installed(installed, source, target):
    """The pages of the folders, and the results of the benchmark and the calibration, are of the repository alone."""
    missing = files_below(ROOT / source) - files_below(installed / target)
    kept = ("benchmark/results/", "experiments/results/")
    assert {name for name in missing if not (name.endswith("README.md") or name.startswith(kept))} == set()


def test_every_package_is_listed():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(settings["options"]["packages"].split())
    found = {
        ".".join((target, *path.parent.relative_to(ROOT / source).parts)).replace("/", ".")
        for source, target in PACKAGES.items()
        for path in (ROOT / source).rglob("__init__.py")
    }
    assert listed == found


def test_it_runs_from_an_empty_folder(installed, tmp_path):
    code = """
import operators, pag_inverse
from pag_inverse.settings import PRIORS, load_prior_config, load_task
print(pag_inverse.__file__, operators.__file__, sep="\\n")
print(load_task("motion_deblur", "ffhq", "psld", image_size=512, pag=True).hyperparameters.options["gamma"])
print([load_prior_config(name).name for name in PRIORS])
"""
    lines = run("-c", code, folder=tmp_path, path=installed).splitlines()
    assert all(line.startswith(str(installed)) for line in lines[:2])
    assert lines[2:] == ["0.015", "['ffhq', 'imagenet', 'imagenet_conditional', 'latent', 'pixel', 'sd15']"]


def test_its_commands_load(installed, tmp_path):
    code = """
import importlib.metadata, sys
(found,) = importlib.metadata.distributions(name="pag-inverse", path=[sys.argv[1]])
for command in found.entry_points.select(group="console_scripts"):
    print(command.name, callable(command.load()))
print("torch" in sys.modules)
"""
    lines = run("-c", code, installed, folder=tmp_path, path=installed).splitlines()
    assert sorted(lines) == ["False", "pag-inverse True"]
