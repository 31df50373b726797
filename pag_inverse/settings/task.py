"""The settings of a task: its operator, its noise, and the rows of the paper's tables (`configs/tasks`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from operators.validation import (
    Count,
    Interval,
    Names,
    NonNegative,
    Peak,
    Sigma,
    check_whole,
    settings,
    short,
    validated,
)
from pag_inverse.settings.names import TRAINING_STEPS
from pag_inverse.settings.prior import Kind
from pag_inverse.settings.reader import FileModel, open_settings, read_model, shipped_names

TASKS = shipped_names("tasks")
PAPER_TASKS = ("box_inpainting", "gaussian_deblur", "motion_deblur", "super_resolution")  # of Tables 4 to 8
LARGE_FROM = 384  # pictures from this side on take the operator of 512 pixels


@settings
class OperatorConfig:
    """An operator's name among `operators.OPERATORS` and its settings, sizes in pixels."""

    name: str
    settings: Mapping[str, Any]


@settings
class Hyperparameters:
    """One column of Table 5 or 7: PAG with scale `s` at `layers`, `steps`, and the solver's own `options`.

    Without PAG `s` is 0 and `layers` is empty. `pag_interval`: the lowest and the highest t / 1000 at which PAG
    acts. `perturbation` and `combination` are spelled as guidance reads them ("seg:sigma=2.0"); `adaptive_scale` is a
    of s(t) = max(0, s - a (1000 - t)). `tuned_side`: the side in pixels of the pictures that the step sizes hold for;
    None where they are meant for pictures of any side. `options` holds what the solver's options class has: eta, ...

    >>> from pag_inverse import Hyperparameters
    >>> row = Hyperparameters(s=2.0, layers=("middle_block.1",), steps=100, options={"eta": 1.0})
    >>> row.steps, row.options["eta"]
    (100, 1.0)
    """

    s: NonNegative = 0.0
    layers: Names = ()
    steps: Annotated[int, Field(ge=1, le=TRAINING_STEPS)] = TRAINING_STEPS
    pag_interval: Interval = (0.0, 1.0)
    perturbation: str = "identity"
    combination: str = "plain"
    adaptive_scale: NonNegative = 0.0
    tuned_side: Count | None = None
    options: Mapping[str, Any] = Field(default_factory=dict)

    def further_guidance(self) -> dict[str, Any]:
        """The perturbation, the combination and a of the adaptive scale, those that differ from PAG's own."""
        plain = {"perturbation": "identity", "combination": "plain", "adaptive_scale": 0.0}
        return {name: getattr(self, name) for name, value in plain.items() if getattr(self, name) != value}


@settings
class TaskConfig:
    """A degradation, its noise (`sigma` on the [-1, 1] range, or `peak`) and the row of the tables that goes with it.

    `peak` is None but for Poisson noise, which has no sigma of its own: 0. `hyperparameters` is None where no dataset
    was named. `source` names the file in messages.
    """

    name: str
    dataset: str | None
    solver: str
    pag: bool
    operator: OperatorConfig
    noise: str
    sigma: Sigma
    noise_in_hole: bool
    hyperparameters: Hyperparameters | None
    source: str = ""
    peak: Peak | None = None


class _Operator(FileModel):
    name: str
    settings: dict[int, dict[str, Any]] = Field(min_length=1)


class _Noise(FileModel):
    name: str
    sigma: Sigma = 0.0
    peak: Peak | None = None
    in_hole: bool = True

    @model_validator(mode="after")
    def _one_level(self) -> _Noise:
        if ("sigma" in self.model_fields_set) == (self.peak is not None):
            raise ValueError("it must have a sigma, or for poisson noise a peak")
        return self


class _Pair(FileModel):
    with_pag: dict[str, Any] | None = None
    without_pag: dict[str, Any] | None = None


class _TaskFile(FileModel):
    operator: _Operator
    noise: _Noise
    rows: dict[str, dict[str, _Pair]]
    recommended: dict[str, dict[Kind, str]] = Field(default_factory=dict)


Rows = Mapping[str, Mapping[str, Hyperparameters]]  # by dataset, then by SOLVER.with_pag or SOLVER.without_pag


def load_task(task: str | Path, dataset: str | None, solver: str, *, image_size: int, pag: bool) -> TaskConfig:
    """Read a task's operator, noise and, where a dataset is named, its row of the tables.

    `task` is one of TASKS or the path of a YAML file written like theirs; `image_size` in pixels picks the
    operator among those of the file. An unknown name, a missing row and a faulty file are one-line ValueErrors.

    >>> from pag_inverse import load_task
    >>> task = load_task("motion_deblur", "ffhq", "psld", image_size=512, pag=True)
    >>> task.operator.settings["kernel_size"], task.hyperparameters.s, task.hyperparameters.options["eta"]
    (121, 4.0, 0.15)
    """
    check_whole("image_size", image_size, minimum=1)
    name, source, file, rows = _read_task(task)
    row = _pick_row(rows, dataset, _row_name(solver, pag), source)
    side = row.tuned_side if row and row.tuned_side else image_size
    return TaskConfig(
        name=name,
        dataset=dataset,
        solver=solver,
        pag=pag,
        operator=OperatorConfig(file.operator.name, operator_settings(file.operator.settings, side)),
        noise=file.noise.name,
        sigma=file.noise.sigma,
        noise_in_hole=file.noise.in_hole,
        hyperparameters=row,
        source=source,
        peak=file.noise.peak,
    )


def has_row(task: str | Path, dataset: str, solver: str, *, pag: bool) -> bool:
    """Whether a task has a row of this dataset, solver and guidance; ValueError for an unknown task or a faulty file.

    >>> from pag_inverse.settings.task import has_row
    >>> has_row("motion_deblur", "natural", "dps", pag=True), has_row("motion_deblur", "ffhq", "ddrm", pag=True)
    (True, False)
    """
    return _row_name(solver, pag) in _read_task(task)[3].get(dataset, {})


def recommended_solver(task: str | Path, kind: Kind, dataset: str | None, *, pag: bool) -> str | None:
    """The solver that a task recommends with a pixel or a latent prior of a dataset; None where it names none.

    None, too, where the dataset has no row of that solver and guidance. ValueError for an unknown task or a
    faulty file.

    >>> from pag_inverse.settings.task import recommended_solver
    >>> recommended_solver("motion_deblur", "pixel", "imagenet", pag=True) is None
    True
    """
    _, _, file, rows = _read_task(task)
    solver = file.recommended.get(dataset or "", {}).get(kind)
    return solver if solver and _row_name(solver, pag) in rows.get(dataset or "", {}) else None


def operator_settings(by_side: Mapping[int, Mapping[str, Any]], side: int) -> Mapping[str, Any]:
    """The settings for pictures of a side: those of 512 pixels from 384 on, else the smallest there are."""
    return by_side[max(by_side) if side >= LARGE_FROM else min(by_side)]


def _read_task(task: str | Path) -> tuple[str, str, _TaskFile, Rows]:
    """A task's name, its source, its file, and every row of it."""
    name, source, values = open_settings("task", task, TASKS)
    file = read_model(_TaskFile, values, source)
    rows = {name: _read_rows(pairs, f"{source}: rows.{name}") for name, pairs in file.rows.items()}
    for dataset, found in file.recommended.items():
        there = ", ".join(file.rows.get(dataset, {})) or "none"
        for kind, solver in found.items():
            if solver not in file.rows.get(dataset, {}):
                raise ValueError(f"{source}: recommended.{dataset}.{kind} is {short(solver)}; its rows are of {there}")
    return name, source, file, rows


def _row_name(solver: str, pag: bool) -> str:
    return f"{solver}.{'with_pag' if pag else 'without_pag'}"


def _read_rows(pairs: Mapping[str, _Pair], where: str) -> dict[str, Hyperparameters]:
    """Every row of a dataset by its name: a fault in one that is not asked for is found too."""
    return {
        f"{solver}.{kind}": _read_row(row, f"{where}.{solver}.{kind}", pag=kind == "with_pag")
        for solver, pair in pairs.items()
        for kind, row in (("with_pag", pair.with_pag), ("without_pag", pair.without_pag))
        if row is not None
    }


def _read_row(row: Mapping[str, Any], where: str, pag: bool) -> Hyperparameters:
    """The row's own keys, and all others as the solver's options."""
    guidance = ("s", "layers", "pag_interval", "perturbation", "combination", "adaptive_scale") if pag else ()
    own = {key: row[key] for key in (*guidance, "steps", "tuned_side") if key in row}
    missing = [key for key in ("s", "layers", "steps") if key not in own and (pag or key == "steps")]
    if missing:
        raise ValueError(f"{where}.{missing[0]} is missing")
    if pag and not (isinstance(own["layers"], list) and own["layers"]):
        raise ValueError(f"{where}.layers is {short(own['layers'])}, not a list of names")
    options = row.get("options", {})
    if not isinstance(options, Mapping):
        raise ValueError(f"{where}.options is {short(options)}, not a mapping of keys to values")
    others = {key: value for key, value in row.items() if key not in own and key != "options"}
    twice = sorted(set(others) & set(options))
    if twice:
        raise ValueError(f"{where}.{twice[0]} is given twice")
    return validated(Hyperparameters, {**own, "options": {**others, **options}}, where)


def _pick_row(rows: Rows, dataset: str | None, row: str, source: str) -> Hyperparameters | None:
    if dataset is None:
        return None
    if dataset not in rows:
        there = ", ".join(rows) or "none"
        raise ValueError(f"unknown dataset {dataset!r}; the rows of {source} are for {there}")
    if row not in rows[dataset]:
        there = ", ".join(rows[dataset]) or "none"
        raise ValueError(f"{source}: rows.{dataset} has no row {row}; there are {there}")
    return rows[dataset][row]
