"""Solvers, one algorithm a file. A new one is a subclass of `Solver` in its own file and a line in SOLVERS."""

from collections.abc import Mapping
from typing import Any

from pag_inverse.settings import Hyperparameters, field_lines, validated
from pag_inverse.solvers.base import Solver, State, StepOutput
from pag_inverse.solvers.daps import DAPS
from pag_inverse.solvers.ddnm import DDNM
from pag_inverse.solvers.diffpir import DiffPIR
from pag_inverse.solvers.dps import DPS
from pag_inverse.solvers.latent_daps import LatentDAPS
from pag_inverse.solvers.ldps import LDPS
from pag_inverse.solvers.mmps import MMPS
from pag_inverse.solvers.pigdm import PiGDM
from pag_inverse.solvers.psld import PSLD
from pag_inverse.solvers.reddiff import REDdiff

__all__ = [
    "DAPS",
    "DDNM",
    "DPS",
    "LDPS",
    "MMPS",
    "PSLD",
    "SOLVERS",
    "DiffPIR",
    "LatentDAPS",
    "PiGDM",
    "REDdiff",
    "Solver",
    "State",
    "StepOutput",
    "default_solver",
    "make_solver",
    "option_lines",
    "option_names",
    "solver_class",
]

SOLVERS: dict[str, type[Solver]] = {
    "dps": DPS,
    "pigdm": PiGDM,
    "mmps": MMPS,
    "ddnm": DDNM,
    "diffpir": DiffPIR,
    "psld": PSLD,
    "ldps": LDPS,
    "daps": DAPS,
    "latent_daps": LatentDAPS,
    "reddiff": REDdiff,
}


def solver_class(name: str) -> type[Solver]:
    """The solver `name` of SOLVERS; ValueError for an unknown one."""
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; there are {', '.join(SOLVERS)}")
    return SOLVERS[name]


def default_solver(kind: str) -> str:
    """The first solver whose own prior is of a kind: `pixel` or `latent`."""
    return next(name for name, solver in SOLVERS.items() if solver.default_prior == kind)


def make_solver(name: str, options: Hyperparameters | Mapping[str, Any], where: str = "") -> Solver:
    """The solver `name` with a row's options, or with a mapping of them.

    ValueError, which begins with `where`: an unknown name or option, a missing one, a value that is not allowed.

    >>> from pag_inverse import load_task, make_solver
    >>> row = load_task("super_resolution", "ffhq", "psld", image_size=512, pag=True).hyperparameters
    >>> make_solver("psld", row).gamma
    0.07
    """
    found = options.options if isinstance(options, Hyperparameters) else options
    return validated(solver_class(name), found, where)


def option_names(name: str) -> tuple[str, ...]:
    """The options of the solver `name`, in their order."""
    return tuple(getattr(solver_class(name), "__pydantic_fields__", {}))


def option_lines(name: str) -> list[str]:
    """A line for each option of the solver `name`; see `field_lines`."""
    return field_lines(solver_class(name))
