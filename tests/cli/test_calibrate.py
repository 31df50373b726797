"""The calibration's command: runs that gather in one JSON, and bad input."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pag_inverse import PiGDM, Solver
from pag_inverse.cli import calibrate
from pag_inverse.experiments import calibration
from pag_inverse.experiments.calibration import CASES
from pag_inverse.experiments.calibration_cases import draw_samples

LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is of Linux")


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


def test_stopped_by_ctrl_c_the_finished_solvers_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draws(solver: Solver, *others: Any) -> Tensor:
        if isinstance(solver, PiGDM):
            raise KeyboardInterrupt
        return draw_samples(solver, *others)

    monkeypatch.setattr(calibration, "draw_samples", draws)
    output = tmp_path / "calibration.json"
    arguments = ["--solvers", "dps", "pigdm", "--steps", "2", "--samples", "4", "--output", str(output)]
    assert calibrate.main(arguments) == 130
    assert "calibrate: stopped; the same command starts anew" in capsys.readouterr().err
    assert [run["solver"] for run in json.loads(output.read_text())["runs"]] == ["dps"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--solvers other", "unknown solver 'other'"),
        ("--set other=1", "other"),
        ("--solvers dps --set variance=prior", "variance"),
        ("--solvers dps dps", "solvers: 'dps' is given twice"),
        ("--samples 1000000000", "samples is 1000000000; it must be less than or equal to 100000"),
        ("--solvers pigdm --set weight=1e300", "weight is 1e+300"),
        ("--output cut.json", "cut.json holds no runs of calibrate"),
        ("--output numbers.json", "numbers.json holds no runs of calibrate"),
        ("--samples 1", "samples is 1; a deviation needs at least 2"),
        ("--steps 1001", "from 1 to 1000"),
        ("--output here", "here is no file"),
        pytest.param("--output /proc/new/calibration.json", "/proc cannot be written", marks=LINUX),
        ("--output other.json", "other.json holds no runs of calibrate"),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    Path("other.json").write_text("{}")
    Path("numbers.json").write_text('{"runs": [1]}')
    run = {"solver": "dps", "options": {}, "steps": 2, "samples": 4, "cases": {}}
    Path("cut.json").write_text(json.dumps({"runs": [run]}))
    assert calibrate.main(shlex.split(arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.json", "here", "numbers.json", "other.json"]
