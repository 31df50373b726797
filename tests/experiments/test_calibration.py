"""The stored calibration: the README's table is made from it, and the solvers still do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import pag_inverse
from pag_inverse.experiments.calibration import CASES, case_name, label, measure, read_runs, row, table, verdict
from pag_inverse.experiments.calibration_cases import make_case
from pag_inverse.solvers import SOLVERS

PACKAGE = Path(pag_inverse.__file__).parent
STORED = PACKAGE / "experiments" / "results" / "calibration.json"
if not STORED.is_file():
    pytest.skip("the figures are not beside the installed package", allow_module_level=True)
RUNS = read_runs(STORED)
CASE = ("smooth", "mask", 0.3)


def test_the_readme_has_the_stored_table_and_every_solver() -> None:
    assert table(RUNS) in (PACKAGE / "solvers" / "README.md").read_text(encoding="utf-8")
    assert {run["solver"] for run in RUNS if not run["options"]} == set(SOLVERS)
    assert all(set(run["cases"]) == {case_name(*case) for case in CASES} for run in RUNS)


def test_the_commands_of_the_readme_are_those_of_the_stored_runs() -> None:
    """Each run with options of its own, or another number of steps, has a command."""
    page = (PACKAGE / "solvers" / "README.md").read_text(encoding="utf-8")
    commands = [line for line in page.splitlines() if "scripts/calibrate.py" in line]
    for run in RUNS:
        options = [
            label({"solver": run["solver"], "options": {k: v}}).partition(", ")[2] for k, v in run["options"].items()
        ]
        asked = [option.replace(" = ", "=") for option in options]
        steps = [f"--steps {run['steps']}"] if run["steps"] != 250 else []
        samples = [f"--samples {run['samples']}"] if run["samples"] != 128 else []
        wanted = [run["solver"], *asked, *steps, *samples]
        assert any(all(re.search(rf"(?<!\S){re.escape(w)}(?!\S)", c) for w in wanted) for c in commands), label(run)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{label(run)} {run['steps']}")
def test_a_solver_does_what_is_stored(run: dict[str, Any]) -> None:
    """One case."""
    stored = run["cases"][case_name(*CASE)]
    found = measure(run, make_case(*CASE))
    for name in ("ratio", "measured", "unmeasured"):
        assert found[name] == pytest.approx(stored[name], rel=0.2, abs=0.005), name
    assert found["bias"] == pytest.approx(stored["bias"], rel=0.2, abs=0.02)


def made_up(**figures: float) -> dict[str, Any]:
    """A run whose cases all have the same figures."""
    case = {
        "bias": 0.0,
        "measured": 1.0,
        "unmeasured": 1.0,
        "failed": 0.0,
        "weight": 0.3,
        "exact_weight": 0.3,
        **figures,
    }
    return {"solver": "any", "options": {}, "steps": 9, "cases": {case_name(*one): case for one in CASES}}


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, "samples"),
        ({"measured": 0.3}, "collapses where measured"),
        ({"measured": 0.3, "unmeasured": 0.2}, "collapses"),
        ({"measured": 0.7, "unmeasured": 1.4}, "too narrow where measured, too wide where unmeasured"),
        ({"bias": 0.2}, "samples, biased"),
        ({"weight": 0.5}, "samples, wrong weights"),
        ({"failed": 0.1}, "fails"),
    ],
)
def test_the_verdict(figures: dict[str, float], expected: str) -> None:
    assert verdict(made_up(**figures)) == expected


def test_a_run_that_is_too_narrow_here_and_too_wide_there_is_uneven() -> None:
    run = made_up()
    run["cases"] = {
        name: {**case, "measured": 2.0 if i % 2 else 0.5} for i, (name, case) in enumerate(run["cases"].items())
    }
    assert verdict(run) == "uneven where measured"


def test_a_row_of_the_table() -> None:
    run = made_up(bias=0.25, measured=0.5, unmeasured=2.0, weight=0.5)
    assert row(run)[:3] == ["`any`", "9", "0.25; 0.50 / 2.00"] and row(run)[-2] == "0.20"
