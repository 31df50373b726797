"""Solvers, one algorithm a file: a new one is a subclass of `Solver` in its own file and a line in `make_solver`."""

from pag_inverse.settings import Hyperparameters
from pag_inverse.solvers.base import Solver, StepOutput
from pag_inverse.solvers.dps import DPS
from pag_inverse.solvers.psld import PSLD

__all__ = ["DPS", "PSLD", "Solver", "StepOutput", "make_solver"]


def make_solver(name: str, row: Hyperparameters) -> Solver:
    """The solver of a row of the tables; ValueError for an unknown name or a PSLD row without gamma."""
    options = row.options
    if name == "dps":
        return DPS(
            row.eta,
            variance=options.variance,
            spacing=options.spacing,
            step_scaling=options.step_scaling,
            noise_floor=options.noise_floor,
            step_limit=options.step_limit,
            gradient_interval=options.gradient_interval,
            gradient_part=options.gradient_part,
        )
    if name == "psld":
        if row.gamma is None:
            raise ValueError("PSLD needs gamma")
        return PSLD(
            row.eta,
            row.gamma,
            renoise_prediction=options.renoise_prediction,
            encode=options.encode,
            ddim_eta=options.ddim_eta,
            spacing=options.spacing,
            step_scaling=options.step_scaling,
            noise_floor=options.noise_floor,
            step_limit=options.step_limit,
            gradient_interval=options.gradient_interval,
            gradient_part=options.gradient_part,
            encode_interval=options.encode_interval,
        )
    raise ValueError(f"unknown solver {name!r}; there are dps, psld")
