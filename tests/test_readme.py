"""What the READMEs say is so: their Python runs, their commands run in small, their flags and pictures exist."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from operators import gaussian_kernel
from pag_inverse.data.images import bundled_photograph, prepare, to_uint8, write_png

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    ROOT / "README.md",
    *(p for d in ("operators", "configs", "scripts", "pag_inverse") for p in ROOT.glob(f"{d}/**/README.md")),
]
FILES = sorted(path for path in FILES if "embedded" not in path.parts)
# The rooms' own tests run what these say.
OWN_TESTS = {"operators", "priors", "evaluation", "experiments", "training", "benchmark", "adapters", "pipelines"}
TESTED = [path for path in FILES if path.parent.name not in OWN_TESTS]
# What makes a command small enough to run; the benchmark's own tests run it.
PAGES = ("ablate", "compare")  # they take long: only what is checked before
SMALL = {
    "solve": ["--steps", "2"],
    "evaluate": ["--steps", "1", "--size", "64"],
    "sample": ["--steps", "1", "--count", "1"],
    "search": ["--steps", "1", "--size", "64", "--pictures", "1", "--samples", "1"],
    "ablate": ["--table-only", "--size", "64", "--pictures", "1"],
    "compare": ["--page-only", "--size", "64"],
    "train": ["--steps", "1", "--batch", "1", "--crops", "32:1"],
}
MODULES = {"train_prior": "train"}


def name_of(path: Path) -> str:
    return path.parent.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Every `scripts/NAME.py ARGUMENTS` once."""
    lines = [line for path in TESTED for block in blocks(path, "bash") for line in block.splitlines()]
    found = [re.search(r"scripts/(\w+)\.py(.*)", line) for line in lines]
    return sorted({(m[1], m[2].strip()) for m in found if m})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the READMEs name, small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    small = prepare(bundled_photograph("astronaut"), 64)
    for name in ("blurred.png", "damaged.png", "noisy.png"):
        write_png(name, small)
    write_png("small.png", small[:, :24, :24])
    PIL.Image.fromarray(to_uint8(small)).save("compressed.jpg", quality=10)
    photo = to_uint8(small)
    photo[30:33, 10:50] = (255, 0, 255)  # a scratch, painted over
    write_png("photo.png", photo)
    erased = PIL.Image.fromarray(photo)
    erased.putalpha(PIL.Image.fromarray(np.where(np.eye(64) > 0, 0, 255).astype(np.uint8)))
    erased.save("erased.png")
    mask = np.full((64, 64, 3), 255, np.uint8)
    mask[10:20, 10:20] = 0
    write_png("mask.png", mask)
    np.save("kernel.npy", gaussian_kernel(9, 1.5))
    np.save("blurred.npy", small)
    for folder in ("pictures", "photographs", "test_pictures", "training_pictures"):
        (tmp_path / folder).mkdir()
        for photograph in ("astronaut", "coffee"):
            write_png(tmp_path / folder / f"{photograph}.png", prepare(bundled_photograph(photograph), 96))
    shutil.copytree("pictures", "originals")
    Path("masks").mkdir()
    for photograph in ("astronaut", "coffee"):
        write_png(f"masks/{photograph}.png", np.pad(mask, ((0, 32), (0, 32), (0, 0)), constant_values=255))
    return tmp_path


@pytest.mark.parametrize("script, arguments", commands(), ids=lambda text: text[:60])
def test_every_command_runs_in_small(
    script: str, arguments: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"pag_inverse.cli.{MODULES.get(script, script)}")
    given = shlex.split(arguments)
    module.parser().parse_args(given)
    if "--weights-dir" in given:
        pytest.skip("the weights and the data set do not come with the repository: parsed alone")
    if script not in SMALL and script not in MODULES:
        return
    listing = "--list-layers" in given
    given += [] if listing else SMALL[MODULES.get(script, script)]
    if script == "solve" and not listing and "--measurement" not in given:
        given += ["--size", "64"]
    assert module.main(given) == (0 if script not in PAGES else 2)
    assert script not in PAGES or "run in it" in capsys.readouterr().err  # the page alone, of nothing: all else is good


@pytest.mark.parametrize("path", [path for path in TESTED if blocks(path, "python")], ids=name_of)
def test_the_python_runs(path: Path, here: Path) -> None:
    names: dict[str, object] = {}
    for code in blocks(path, "python"):
        # Few steps are enough: a row's own number of them takes minutes.
        code = re.sub(r"(restore\((?:[^()]|\([^()]*\))*)\)(?=\s|$)", r"\1, steps=2)", code)
        exec(compile(code, str(path), "exec"), names)
    if path.parent == ROOT:
        assert names["output"].x.shape == (1, 2, 3, 64, 64)  # type: ignore[attr-defined]
    elif path.parent.name == "solvers":
        assert isinstance(names["result"].x, torch.Tensor) and "Landweber" in names  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", TESTED, ids=name_of)
def test_every_flag_exists(path: Path) -> None:
    from pag_inverse.cli.main import COMMANDS

    parsers = [importlib.import_module(f"pag_inverse.cli.{name}").parser() for name in COMMANDS]
    known = {name for parser in parsers for action in parser._actions for name in action.option_strings}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", path.read_text(encoding="utf-8")))
    assert named <= {*known, "--standalone", "--nproc-per-node"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_link_and_picture_exists(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_the_yaml_of_the_settings_is_read(here: Path) -> None:
    from pag_inverse.settings import load_prior_config, load_task
    from pag_inverse.solvers import make_solver

    task, prior = blocks(ROOT / "configs" / "README.md", "yaml")
    Path("mine.yaml").write_text(task)
    Path("prior.yaml").write_text(prior)
    for solver, pag in (("dps", True), ("dps", False), ("psld", True)):
        row = load_task("mine.yaml", "mine", solver, image_size=64, pag=pag).hyperparameters
        assert row is not None and make_solver(solver, row)
    assert load_prior_config("prior.yaml").family == "adm"


def test_the_main_page_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


def test_the_commands_of_the_package_are_those_of_the_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    from pag_inverse.cli.main import COMMANDS, main

    assert {MODULES.get(path.stem, path.stem) for path in (ROOT / "scripts").glob("*.py")} == set(COMMANDS)
    assert main(["--help"]) == 0
    assert all(command in said for said in [capsys.readouterr().out] for command in COMMANDS)
    assert main([]) == 2 and main(["restore"]) == 2
    assert "unknown command 'restore'" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert main(["solve", "--set", "help"]) == 0
    assert "options of dps" in capsys.readouterr().out
