"""Inverse problems with diffusion priors under Perturbed-Attention Guidance."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pag_inverse.generation import SampleOutput, sample
    from pag_inverse.guidance import Explainer, GuidedModel, NoGuidance, PerturbedAttentionGuidance
    from pag_inverse.priors import LatentPrior, PixelPrior, Prior, load_prior
    from pag_inverse.problem import InverseProblem, simulate
    from pag_inverse.restoration import ChainResult, RestorationOutput, restore, solve
    from pag_inverse.settings import TASKS, Hyperparameters, load_task
    from pag_inverse.solvers import (
        DAPS,
        DDNM,
        DPS,
        LDPS,
        MMPS,
        PSLD,
        SOLVERS,
        DiffPIR,
        LatentDAPS,
        PiGDM,
        REDdiff,
        Solver,
        State,
        StepOutput,
        make_solver,
    )

__version__ = "0.2.0"


def _check_operators() -> None:
    """`operators` is a common name: a foreign package of that name in front of ours is one clear error."""
    spec = find_spec("operators")
    if spec is None or spec.origin is None or not Path(spec.origin).with_name("super_resolution.py").exists():
        places = spec and (spec.origin or list(spec.submodule_search_locations or []))
        found = f"found {places}" if spec else "none is installed"
        raise ImportError(
            f"pag_inverse needs its own top-level package 'operators', but {found}; "
            "run `pip install -e .` in the repository, or start where no other 'operators' comes first on the path"
        )


_check_operators()
# The public names and the rooms that they live in.
_HOMES = {
    "PiGDM": "solvers",
    "MMPS": "solvers",
    "DiffPIR": "solvers",
    "DDNM": "solvers",
    "DAPS": "solvers",
    "DPS": "solvers",
    "LDPS": "solvers",
    "PSLD": "solvers",
    "SOLVERS": "solvers",
    "TASKS": "settings",
    "ChainResult": "restoration",
    "Explainer": "guidance",
    "GuidedModel": "guidance",
    "Hyperparameters": "settings",
    "InverseProblem": "problem",
    "LatentDAPS": "solvers",
    "LatentPrior": "priors",
    "NoGuidance": "guidance",
    "PerturbedAttentionGuidance": "guidance",
    "PixelPrior": "priors",
    "Prior": "priors",
    "REDdiff": "solvers",
    "RestorationOutput": "restoration",
    "SampleOutput": "generation",
    "Solver": "solvers",
    "State": "solvers",
    "StepOutput": "solvers",
    "load_prior": "priors",
    "load_task": "settings",
    "make_solver": "solvers",
    "restore": "restoration",
    "sample": "generation",
    "simulate": "problem",
    "solve": "restoration",
}
__all__ = [
    "DAPS",
    "DDNM",
    "DPS",
    "LDPS",
    "MMPS",
    "PSLD",
    "SOLVERS",
    "TASKS",
    "ChainResult",
    "DiffPIR",
    "Explainer",
    "GuidedModel",
    "Hyperparameters",
    "InverseProblem",
    "LatentDAPS",
    "LatentPrior",
    "NoGuidance",
    "PerturbedAttentionGuidance",
    "PiGDM",
    "PixelPrior",
    "Prior",
    "REDdiff",
    "RestorationOutput",
    "SampleOutput",
    "Solver",
    "State",
    "StepOutput",
    "load_prior",
    "load_task",
    "make_solver",
    "restore",
    "sample",
    "simulate",
    "solve",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that parsing a command line does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pag_inverse' has no attribute {name!r}")
    return getattr(import_module(f"pag_inverse.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
