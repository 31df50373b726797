"""The search of a row: each setting once, values that depend on each other, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pag_inverse.cli import search as command
from pag_inverse.data.images import BUNDLED, bundled_photograph, prepare, write_png
from pag_inverse.experiments.search import read_grid
from pag_inverse.storage.json_lines import read_lines

ARGS = ["--task", "super_resolution", "--solver", "psld", "--data", "training", "--output", "found"]
ARGS += ["--size", "64", "--pictures", "1", "--samples", "2", "--steps", "2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "training").mkdir()
    for name in BUNDLED:
        write_png(tmp_path / "training" / f"{name}.png", prepare(bundled_photograph(name), 256))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tried(here: Path) -> list[dict[str, Any]]:
    return read_lines(here / "found" / "rank-000.jsonl")[0]


def test_a_grid_takes_numbers_with_an_exponent() -> None:
    assert read_grid(["lr=1e-5,0.5", "gamma=0.1*eta"]) == {"lr": (1e-5, 0.5), "gamma": ("0.1*eta",)}


def test_each_setting_is_tried_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["--grid", "eta=4,8", "gamma=0.1*eta"]
    guided = ["--pag", "0", "2", "--layers", "mid_block.attentions.0"]
    assert command.main([*ARGS, *grid]) == 0 and command.main([*ARGS, *grid, *guided]) == 0
    entries = tried(here)
    assert [(e["options"]["eta"], e["s"]) for e in entries] == [(4, 0), (8, 0), (4, 2), (8, 2)]
    assert all(e["options"]["gamma"] == pytest.approx(0.1 * e["options"]["eta"]) for e in entries)
    printed = capsys.readouterr().out
    assert printed.count("mid_block.attentions.0") == 2 and "measurement, enlarged" in printed
    limited = ["--grid", "eta=4", "gamma=0.4", "step_limit=noise", "encode_interval=1,2"]
    assert command.main([*ARGS, *limited]) == 0
    options = [e["options"] for e in tried(here)[4:]]
    assert [(o["step_limit"], o["encode_interval"]) for o in options] == [("noise", 1), ("noise", 2)]


def test_other_weights_or_pictures_are_another_search(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*ARGS, "--grid", "eta=4"]) == 0
    assert command.main([*ARGS, "--grid", "eta=4", "--seed", "1"]) == 2
    assert "seed 0 (now 1)" in capsys.readouterr().err


BAD = [
    (["--pag", "2"], "--layers is needed"),
    (["--grid", "eta=-1"], "eta is -1"),
    (["--grid", "rho=1"], "eta"),
    (["--grid", "gamma=0.1*eta"], "eta must be another option"),
    (["--grid", "eta=4", "gamma=x*eta"], "NUMBER*OPTION"),
    (["--grid", "eta=4", "eta=5"], "each key be given once"),
    (["--grid", "eta"], "KEY=VALUE,VALUE"),
    (["--grid", "eta=4", "--pictures", "0"], "pictures is 0"),
    (["--grid", "eta=4", "--solver", "hmc"], "unknown solver 'hmc'"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*ARGS, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not (here / "found").exists()
