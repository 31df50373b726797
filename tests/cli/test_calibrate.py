"""The calibration's command: runs that gather in one JSON, and bad input."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from pag_inverse.cli import calibrate
from pag_inverse.experiments.calibration import CASES


def test_runs_gather_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "calibration.json"
    common = ["--samples", "4", "--output", str(output)]
    assert calibrate.main(["--solvers", "dps", "psld", "--steps", "2", *common]) == 0
    assert calibrate.main(["--solvers", "pigdm", "--set", "variance=prior", "--steps", "3", *common]) == 0
    assert calibrate.main(["--solvers", "dps", "--steps", "2", *common]) == 0  # in place of the first
    runs = json.loads(output.read_text())["runs"]
    assert [(run["solver"], run["steps"]) for run in runs] == [("dps", 2), ("pigdm", 3), ("psld", 2)]
    assert all(len(run["cases"]) == len(CASES) for run in runs)
    table = capsys.readouterr().out.splitlines()[-5:]
    assert table[0].startswith("| solver | steps |") and table[3].startswith("| `pigdm`, variance = prior | 3 |")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--solvers other", "unknown solver 'other'"),
        ("--set other=1", "other"),
        ("--solvers dps --set variance=prior", "variance"),
        ("--samples 1", "samples is 1; a deviation needs at least 2"),
        ("--steps 1001", "from 1 to 1000"),
        ("--output here", "here is no file"),
        ("--output other.json", "other.json holds no runs of calibrate"),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    Path("other.json").write_text("{}")
    assert calibrate.main(shlex.split(arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "other.json"]
