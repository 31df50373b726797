"""Inverse problems with diffusion priors under Perturbed-Attention Guidance."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pag_inverse.settings.files import load_task
    from pag_inverse.guidance.guidance import NoGuidance, PerturbedAttentionGuidance
    from pag_inverse.priors import LatentPrior, PixelPrior, Prior, load_prior
    from pag_inverse.solvers.step_sizes import at_speed
    from pag_inverse.restoration.loop import RestorationResult, solve
    from pag_inverse.solvers import DPS, PSLD, Solver, make_solver

__version__ = "0.1.0"


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
_HOMES = {
    "load_task": "config",
    "NoGuidance": "guidance",
    "PerturbedAttentionGuidance": "guidance",
    "LatentPrior": "priors",
    "PixelPrior": "priors",
    "Prior": "priors",
    "load_prior": "priors",
    "at_speed": "rescaling",
    "RestorationResult": "restoration",
    "solve": "restoration",
    "DPS": "solvers",
    "PSLD": "solvers",
    "Solver": "solvers",
    "make_solver": "solvers",
}
__all__ = [
    "DPS",
    "PSLD",
    "LatentPrior",
    "NoGuidance",
    "PerturbedAttentionGuidance",
    "PixelPrior",
    "Prior",
    "RestorationResult",
    "Solver",
    "at_speed",
    "load_prior",
    "load_task",
    "make_solver",
    "solve",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that parsing a command line does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pag_inverse' has no attribute {name!r}")
    return getattr(import_module(f"pag_inverse.{_HOMES[name]}"), name)
