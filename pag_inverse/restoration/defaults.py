"""What restore() takes where nothing is said: the solver, the row of the tables and the guidance of a task."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from operators import Operator, operator_class
from pag_inverse.guidance import Guidance, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import LatentPrior, Prior
from pag_inverse.problem import InverseProblem
from pag_inverse.settings import (
    AUTO,
    PAPER_TASKS,
    TASKS,
    Hyperparameters,
    Kind,
    OperatorConfig,
    load_task,
    recommended_solver,
)
from pag_inverse.solvers import SOLVERS, Solver, default_solver, solver_class

DEFAULT_TASK = "gaussian_deblur"  # whose rows an operator takes that is like none of the tasks'
ROWS = "natural"  # of the embedded priors; also those of a prior whose data set is not known


def solver_name(
    given: str | Solver | None,
    task: str | Path,
    problem: InverseProblem,
    prior: Prior,
    *,
    pag: bool,
    sigma_is_known: bool,
) -> str:
    """The name that is given, or that of an object's class; else the task's for this prior, or else the paper's."""
    if isinstance(given, str):
        return given
    kind: Kind = "latent" if isinstance(prior, LatentPrior) else "pixel"
    if given is not None:
        return next((known for known, found in SOLVERS.items() if found is type(given)), default_solver(kind))
    name = recommended_solver(task, kind, prior.dataset or ROWS, pag=pag)
    usable = name is not None and solver_class(name).takes(problem.white.operator)
    if name is None or not usable:
        return default_solver(kind)
    if not sigma_is_known and (problem.operator.linear or kind == "pixel"):  # PSLD needs a linear operator
        return default_solver(kind)
    return name


def row_for(task: str | Path, problem: InverseProblem, prior: Prior, name: str, *, pag: bool) -> Hyperparameters:
    """The task's row for this solver and prior; without step sizes where there is none."""
    for dataset in (prior.dataset, ROWS):
        if dataset is None:
            continue
        try:
            config = load_task(task, dataset, name, image_size=int(min(problem.operator.in_shape[1:])), pag=pag)
        except ValueError:
            continue
        assert config.hyperparameters is not None
        return config.hyperparameters
    return Hyperparameters(steps=100)


def task_like(operator: Operator) -> str:
    """The task whose operator is of the same class, or of a class that is most like it, with the most settings of the
    same value; the paper's where there are several."""
    for base in [base for base in type(operator).__mro__ if base not in Operator.__mro__]:
        found = [
            (sum(getattr(operator, name, None) == value for name, value in config.settings.items()), -number, task)
            for number, (task, config) in enumerate(_operators_of_tasks().items())
            if base in operator_class(config.name).__mro__
        ]
        if found:
            return max(found)[2]
    return DEFAULT_TASK


@cache
def _operators_of_tasks() -> dict[str, OperatorConfig]:
    """The operator of every task, the paper's first."""
    tasks = dict.fromkeys((*PAPER_TASKS, *TASKS))
    return {task: load_task(task, None, AUTO, image_size=256, pag=False).operator for task in tasks}


def guidance_of(row: Hyperparameters, prior: Prior) -> Guidance:
    """PAG as the row has it, where the prior has its layers."""
    known = {word for layer in prior.layers() for word in (layer.checkpoint, layer.diffusers)}
    if row.s > 0 and set(row.layers) <= known:
        return PerturbedAttentionGuidance.of_row(row)
    return NoGuidance()
