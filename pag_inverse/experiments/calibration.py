"""Calibration: the samples of every solver against posteriors that are known in closed form, as a table."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

from pydantic import Field
from tqdm import tqdm

from pag_inverse.data.files import write_whole
from pag_inverse.experiments.calibration_cases import (
    OPERATORS,
    PRIORS,
    SIGMAS,
    Case,
    draw_samples,
    figures,
    make_case,
)
from pag_inverse.schedule import T
from pag_inverse.settings import Count, Names, check_different, check_whole, settings
from pag_inverse.settings.files import read_json
from pag_inverse.solvers import SOLVERS, Solver, make_solver
from pag_inverse.storage.json_lines import strict
from pag_inverse.storage.places import check_places, check_writable

CASES = tuple(itertools.product(PRIORS, OPERATORS, SIGMAS))
HEAD = ("solver", "steps", *PRIORS, "weight", "verdict")
FROM_PRIOR = "prior"  # the value of an option that stands for the variance of the case's prior
# The words of a verdict by the deviation ratio, each below its bound; the bias, or error of a weight, that is told.
SAMPLES, WIDE, SMALLEST, BIASED = "samples", 1.25, 1e-3, 0.1
WORDS = ((0.5, "collapses"), (1 / WIDE, "too narrow"), (WIDE, SAMPLES), (math.inf, "too wide"))


@settings
class CalibrationRequest:
    """What is measured: solvers, by default all, with some options in place of their own.

    `samples` are of each posterior; `output`: the JSON. The value `prior` of an option is the variance of each prior.
    """

    output: Path
    solvers: Names = ()
    options: dict[str, Any] = field(default_factory=dict)
    samples: Annotated[Count, Field(le=100_000)] = 128
    steps: Count = 250


def calibrate(request: CalibrationRequest) -> int:
    """Measure the solvers and print the table of all in the JSON, where runs with other options or steps are kept.

    ValueError, before anything is measured: an unknown solver or option, a faulty number or output.
    """
    runs = [
        {"solver": name, "options": dict(request.options), "steps": request.steps, "samples": request.samples}
        for name in request.solvers or SOLVERS
    ]
    check_whole("steps", request.steps, 1, T)
    check_different("solvers", request.solvers)
    for run in runs:
        solver_of(run, make_case(*CASES[0]))
    if request.samples < 2:
        raise ValueError(f"samples is {request.samples}; a deviation needs at least 2")
    check_writable(request.output.parent)
    check_places([request.output])
    found = read_runs(request.output) if request.output.exists() else []
    for run in runs:
        cases = tqdm(CASES, desc=label(run), unit="case")
        run["cases"] = {case_name(*case): measure(run, make_case(*case)) for case in cases}
        found = sorted([*(old for old in found if identity(old) != identity(run)), run], key=identity)
        write_runs(request.output, found)
    print(table(found))
    return 0


def measure(run: Mapping[str, Any], case: Case) -> dict[str, float]:
    """The figures of a run's solver in a case, with four digits; see `Figures`."""
    found = asdict(figures(draw_samples(solver_of(run, case), case, run["samples"], run["steps"]), case))
    return {name: float(f"{value:.4g}") for name, value in found.items() if value is not None}


def solver_of(run: Mapping[str, Any], case: Case) -> Solver:
    """A run's solver for a case."""
    options = {name: case.variance if value == FROM_PRIOR else value for name, value in run["options"].items()}
    return make_solver(run["solver"], options)


def case_name(prior: str, operator: str, sigma: float) -> str:
    """What a case is known by in the JSON."""
    return f"{prior}; {operator}; {sigma:g}"


def label(run: Mapping[str, Any]) -> str:
    """A solver with its options."""
    options = (f"{name} = {json.dumps(value)}".replace('"', "") for name, value in run["options"].items())
    return ", ".join([f"`{run['solver']}`", *options])


def identity(run: Mapping[str, Any]) -> tuple[str, int]:
    """What runs are sorted by: one run each."""
    return label(run), run["steps"]


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a JSON; ValueError where it is none of calibration's."""
    runs = read_json(path).get("runs")
    if not isinstance(runs, list) or not all(map(is_run, runs)):
        raise ValueError(f"{path} holds no runs of calibrate; give another --output")
    return runs


def is_run(run: object) -> bool:
    """Whether something is a run as `calibrate` writes it, with the figures of every case."""
    if not isinstance(run, dict) or not isinstance(run.get("options"), dict) or run.get("solver") not in SOLVERS:
        return False
    cases = run.get("cases")
    names, numbers = {case_name(*case) for case in CASES}, [run.get("steps"), run.get("samples")]
    if not isinstance(cases, dict) or set(cases) != names or not all(isinstance(case, dict) for case in cases.values()):
        return False
    numbers += [number for case in cases.values() for number in (case.get("failed"), *case.values())]
    return all(isinstance(number, int | float) for number in numbers)


def write_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """A line for each case."""
    text = json.dumps(strict({"runs": runs}), allow_nan=False)
    for mark in ('{"solver"', *(f'"{case_name(*case)}"' for case in CASES)):
        text = text.replace(mark, f"\n{mark}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f"{text}\n".encode())


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """A line of Markdown for each run.

    Under each prior: the median bias, and the geometric means of the deviation ratios in what was measured and in what
    was not, over operators and sigmas. Under weight: the largest error of the first mode's weight.
    """
    rows = [HEAD, ["---"] * len(HEAD), *(row(run) for run in runs)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(run: Mapping[str, Any]) -> list[str]:
    """The cells of a run."""
    priors = [prior_cell([run["cases"][case_name(*case)] for case in CASES if case[0] == prior]) for prior in PRIORS]
    error = weight_error(list(run["cases"].values()))
    return [label(run), str(run["steps"]), *priors, f"{error:.2f}", verdict(run)]


def weight_error(cases: Sequence[Mapping[str, float]]) -> float:
    """The largest error of the first mode's weight; NaN where all samples failed."""
    return max((abs(f["weight"] - f["exact_weight"]) for f in cases if "weight" in f), default=math.nan)


def prior_cell(cases: Sequence[Mapping[str, float]]) -> str:
    """Bias; ratio in what was measured, ratio in what was not."""
    if any("bias" not in case for case in cases):
        return "fails"
    ratios = " / ".join(f"{geometric_mean(cases, part):.2f}" for part in ("measured", "unmeasured"))
    return f"{median(case['bias'] for case in cases):.2f}; {ratios}"


def geometric_mean(cases: Sequence[Mapping[str, float]], name: str) -> float:
    """Of a figure, at least SMALLEST each."""
    return math.exp(fmean(math.log(max(case[name], SMALLEST)) for case in cases))


def verdict(run: Mapping[str, Any]) -> str:
    """What a run's samples are like: their deviations where measured and where not, their bias, the modes' weights.

    `samples`: the deviations are within 20 % of the posterior's; `collapses`: below half of it; `uneven`: too narrow
    in some cases and too wide in others.
    """
    cases: list[Mapping[str, float]] = list(run["cases"].values())
    if any(case["failed"] for case in cases):
        return "fails"
    words = {part: word(cases, part) for part in ("measured", "unmeasured")}
    same = len(set(words.values())) == 1
    said = [words["measured"]] if same else [f"{said} where {part}" for part, said in words.items() if said != SAMPLES]
    biased = median(case["bias"] for case in cases) > BIASED
    return ", ".join([*said, *["biased"] * biased, *["wrong weights"] * (weight_error(cases) > BIASED)])


def word(cases: Sequence[Mapping[str, float]], part: str) -> str:
    """The word of WORDS for the deviations of a part."""
    mean = geometric_mean(cases, part)
    found = next(word for most, word in WORDS if mean < most)
    apart = fmean(abs(math.log(max(case[part], SMALLEST))) for case in cases)
    return "uneven" if found == SAMPLES and apart > math.log(WIDE) else found
