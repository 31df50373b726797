"""Solvers, one algorithm a file: a new one is a subclass of `Solver` in its own file and a line in `make_solver`."""

from pag_inverse.settings.tables import Hyperparameters
from pag_inverse.solvers.base import Solver, StepOutput
from pag_inverse.solvers.dps import DPS
from pag_inverse.solvers.psld import PSLD

__all__ = ["DPS", "PSLD", "Solver", "StepOutput", "make_solver"]


def make_solver(name: str, row: Hyperparameters) -> Solver:
    """The solver of a row of the tables; ValueError for an unknown name or a PSLD row without gamma."""
    if name == "dps":
        return DPS(row.eta, row.options)
    if name == "psld":
        if row.gamma is None:
            raise ValueError("PSLD needs gamma")
        return PSLD(row.eta, row.gamma, row.options)
    raise ValueError(f"unknown solver {name!r}; there are dps, psld")
