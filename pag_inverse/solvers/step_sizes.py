"""The one place that turns a row of the tables into a solver for a chain and a picture, and says what became of it.

The gradient of a norm keeps its length however near the measurement is, and whatever the number of pixels n. So
moves count by their number: half the steps take twice the step size. And the distance a sample must go grows as
sqrt(n): step sizes grow with the side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pag_inverse.priors import Prior
from pag_inverse.settings import SPEEDS, Hyperparameters, check_choice
from pag_inverse.solvers import Solver, make_solver

DETAIL_VARIANCE = 0.1  # of what the data decides, on the state's own scale; see `lasting_moves`


@dataclass(frozen=True)
class Settled:
    """A solver with its final step sizes, its number of steps, and the factors that the row's step sizes were
    multiplied by: `chain` for the number and spacing of the steps, `side` for the picture's side."""

    solver: Solver
    steps: int
    chain: float = 1.0
    side: float = 1.0


def lasting_moves(solver: Solver, steps: int, prior: Prior) -> float:
    """The sum over a chain of c_i J_i^2: times eta, how far the data moves what comes out.

    c_i multiplies the step size of step i; J_i = sqrt(abar) v / (abar v + 1 - abar) is how much x0 moves with x_t
    under a Gaussian prior of variance v = DETAIL_VARIANCE. It counts once for the gradient, which comes through x0,
    and once for what is left of the move at the end. Where noise is strong J is small: those steps hardly tell.
    """
    schedule = solver.schedule(prior, steps)
    abar = schedule.abar
    lasting = abar * DETAIL_VARIANCE**2 / (abar * DETAIL_VARIANCE + 1 - abar) ** 2
    return float((lasting * np.asarray(solver.step_scales(schedule))).sum())


def settle(
    name: str,
    row: Hyperparameters,
    prior: Prior,
    side: float | None = None,
    *,
    speed: str = "exact",
    given: Mapping[str, Any] | None = None,
    steps: int | None = None,
    tuned_steps: int | None = None,
    where: str = "",
) -> Settled:
    """The solver `name` of a row, with its step sizes brought to the chain that runs and to the picture.

    `speed`: a preset's steps and options replace the row's; a limited row with no more steps than the preset's is one
    already, and stays as it is. `given`: options in place of the row's and the preset's; step sizes among them are
    meant as they are. `steps` in place of the row's or the preset's. `tuned_steps`: all step sizes, given ones too,
    are meant for so many steps of the row's chain. `side` in pixels, the root of height times width: step sizes of a
    row that was tuned for one side grow with it, each that is not given. ValueError: an unknown speed or option.
    """
    given = dict(given or {})
    tuned = make_solver(name, row, where)
    changed, count, multiplier = at_speed(tuned, row.steps, speed)
    solver = make_solver(name, {**changed.options(), **given}, where)
    count = count if steps is None else steps
    chain = 1.0
    if tuned_steps is not None or changed is not tuned:
        chain = lasting_moves(tuned, tuned_steps or row.steps, prior) / lasting_moves(solver, count, prior)
    by_side = side / row.tuned_side if side is not None and row.tuned_side else 1.0
    sizes = {}
    for size in solver.STEP_SIZES:
        factor = multiplier * chain * by_side
        if size in given:
            factor = chain if tuned_steps is not None else 1.0
        sizes[size] = getattr(solver, size) * factor
    return Settled(with_options(solver, sizes), count, multiplier * chain, by_side)


def at_speed(solver: Solver, steps: int, speed: str) -> tuple[Solver, int, float]:
    """A solver with a preset's options, its number of steps, and what multiplies its step sizes beside the chain."""
    check_choice("speed", speed, SPEEDS)
    preset = type(solver).PRESETS.get(speed)
    if preset is None or (getattr(solver, "step_limit", "none") == "noise" and steps <= preset.steps):
        return solver, steps, 1.0
    return with_options(solver, preset.options), min(steps, preset.steps), preset.step_sizes


def with_options(solver: Solver, changes: Mapping[str, Any]) -> Solver:
    """The solver with some options replaced."""
    return replace(solver, **changes) if changes else solver  # type: ignore[type-var]
