"""Step sizes for another chain: the rule by which fewer steps follow the data as far as many do."""

from __future__ import annotations

from dataclasses import replace

from pag_inverse.priors import Prior
from pag_inverse.settings import Hyperparameters
from pag_inverse.solvers import make_solver
from pag_inverse.solvers.base import step_scale
from pag_inverse.speed import preset


def sum_of_scales(row: Hyperparameters, solver: str, prior: Prior) -> float:
    """The sum over the row's chain of what multiplies its step sizes: times eta, how far data can move a sample."""
    made = make_solver(solver, row)
    schedule = made.schedule(prior, row.steps)
    return sum(step_scale(row.options.step_scaling, schedule, i) for i in range(row.steps))


def rescaled(row: Hyperparameters, tuned: Hyperparameters, solver: str, prior: Prior) -> Hyperparameters:
    """The row with eta and gamma multiplied so that their sum over its chain is the one over the `tuned` chain.

    The gradient of a norm keeps its length however near the measurement is, so that the moves of a chain count by their
    number: sum_i eta c_i stays, where c_i is 1 or sqrt(abar) of the step. `tuned` gives the steps, the spacing and the
    step scaling that the step sizes were meant for. `solver`: dps or psld. A row on its own chain stays as it is.
    """
    factor = sum_of_scales(tuned, solver, prior) / sum_of_scales(row, solver, prior)
    return replace(row, eta=row.eta * factor, gamma=None if row.gamma is None else row.gamma * factor)


def at_speed(row: Hyperparameters, speed: str, solver: str, prior: Prior) -> Hyperparameters:
    """A row of the tables at one of the speeds `exact`, `fast`, `draft`, with its step sizes for the shorter chain."""
    return rescaled(preset(row, speed, solver), row, solver, prior)
