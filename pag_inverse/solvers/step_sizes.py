"""Step sizes for another chain: the rule by which fewer steps follow the data as far as many do."""

from __future__ import annotations

from dataclasses import replace

from pag_inverse.priors import Prior
from pag_inverse.settings.tables import Hyperparameters
from pag_inverse.solvers import make_solver
from pag_inverse.settings.presets import preset

DETAIL_VARIANCE = 0.1  # of what the data decides, on the state's own scale; see `lasting_moves`


def lasting_moves(row: Hyperparameters, solver: str, prior: Prior) -> float:
    """The sum over the row's chain of c_i J_i^2: times eta, how far the data moves what comes out.

    c_i is 1 or sqrt(abar) of the step; J_i = sqrt(abar) v / (abar v + 1 - abar) is how much x0 moves with x_t under a
    Gaussian prior of variance v = DETAIL_VARIANCE. It counts once for the gradient, which comes through x0, and once
    for what is left of the move at the end. Where noise is strong J is small: those steps hardly tell.
    """
    made = make_solver(solver, row)
    abar = made.schedule(prior, row.steps).abar
    lasting = abar * DETAIL_VARIANCE**2 / (abar * DETAIL_VARIANCE + 1 - abar) ** 2
    return float((lasting * (abar**0.5 if row.options.step_scaling == "sqrt_abar" else 1.0)).sum())


def rescaled(row: Hyperparameters, tuned: Hyperparameters, solver: str, prior: Prior) -> Hyperparameters:
    """The row with eta and gamma multiplied so that its chain moves a sample as far as the `tuned` chain.

    The gradient of a norm keeps its length however near the measurement is, so that moves count by their number: half
    the steps on the same spacing take twice the step size. `tuned` gives the steps, the spacing and the step scaling
    that the step sizes were meant for. `solver`: dps or psld. A row on its own chain stays as it is.
    """
    factor = lasting_moves(tuned, solver, prior) / lasting_moves(row, solver, prior)
    return replace(row, eta=row.eta * factor, gamma=None if row.gamma is None else row.gamma * factor)


def at_speed(row: Hyperparameters, speed: str, solver: str, prior: Prior) -> Hyperparameters:
    """A row of the tables at one of the speeds `exact`, `fast`, `draft`, with its step sizes for the shorter chain."""
    return rescaled(preset(row, speed, solver), row, solver, prior)
