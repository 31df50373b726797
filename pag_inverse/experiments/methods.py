"""A solver under a guidance, as an experiment tries it: made of a row of the tables, known by all it is set to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pag_inverse.guidance import Guidance, GuidedModel, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import Prior, load_prior
from pag_inverse.problem import InverseProblem
from pag_inverse.settings import Hyperparameters
from pag_inverse.solvers import Solver, solver_class
from pag_inverse.solvers.step_sizes import settle
from pag_inverse.storage.files import sha256
from pag_inverse.training.crops import split_held_out

GUIDANCE = ("s", "layers", "pag_interval", "perturbation", "combination", "adaptive_scale")  # of a row
SHOWN_NAMES = 20  # of settings, in a message


@dataclass(frozen=True)
class Method:
    """A solver with its final step sizes on a chain of `steps`, under PAG with scale s at `layers` (s 0: none).

    The further fields are those of a row of the tables.
    """

    solver: Solver
    steps: int
    s: float = 0.0
    layers: tuple[str, ...] = ()
    pag_interval: tuple[float, float] = (0.0, 1.0)
    perturbation: str = "identity"
    combination: str = "plain"
    adaptive_scale: float = 0.0

    @classmethod
    def of_row(cls, solver: str, row: Hyperparameters, prior: Prior, side: int) -> Method:
        """A row of the tables for pictures of a side; its step sizes follow the side where the row says so."""
        settled = settle(solver, row, prior, side)
        guidance = {name: getattr(row, name) for name in GUIDANCE}
        return cls(settled.solver, settled.steps, **guidance)

    def check(self, prior: Prior, problem: InverseProblem) -> None:
        """ValueError where the prior cannot take the pictures, or has no such layers, or the solver cannot solve it."""
        prior.state_shape(problem.operator.in_shape)
        if self.s > 0:
            prior.resolve_layers(self.layers)
        self.solver.check(problem, prior)

    def model(self, prior: Prior) -> GuidedModel:
        """The prior under this guidance."""
        return GuidedModel(prior, self.guidance())

    def guidance(self) -> Guidance:
        """PAG, or none."""
        if self.s == 0:
            return NoGuidance()
        return PerturbedAttentionGuidance.of_row(self._row())

    def _row(self) -> Hyperparameters:
        return Hyperparameters(**{name: getattr(self, name) for name in GUIDANCE})

    def describe(self) -> dict[str, Any]:
        """All it is set to, for JSON; numbers with six digits, so that the rule of step sizes may round otherwise."""
        options = {name: rounded(value) for name, value in self.solver.options().items()}
        guidance = {"s": self.s, "layers": list(self.layers), "pag_interval": list(self.pag_interval)}
        guidance |= self._row().further_guidance()
        return {"solver": type(self.solver).__name__, "options": options, "steps": self.steps, **guidance}


def rounded(value: Any) -> Any:
    """A number with six digits; anything else as it is."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def digest(content: Any) -> str:
    """Twelve hexadecimal digits that stand for some JSON content."""
    return sha256(json.dumps(content, sort_keys=True).encode())[:12]


def load_priors(solvers: Sequence[str], device: str, precision: str) -> dict[str, Prior]:
    """The embedded prior of each solver, each loaded once."""
    names = {solver: solver_class(solver).default_prior for solver in solvers}
    loaded = {name: load_prior(name, device=device, precision=precision) for name in set(names.values())}
    return {solver: loaded[name] for solver, name in names.items()}


def training_pictures(folder: Path, count: int, output: Path) -> dict[str, Path]:
    """`count` of the pictures of a folder that are not held out, by their path below it; those in `output` are none."""
    training, _ = split_held_out(folder, output=output)
    return {"__".join(path.relative_to(folder).with_suffix("").parts): path for path in spread(training, count)}


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """`count` of the files, spread evenly over them."""
    return list(files[:: max(1, len(files) // count)][:count])


def check_words(words: Sequence[str], names: Sequence[str]) -> None:
    """ValueError for a word of --only that no setting has in its name."""
    shown = names[:SHOWN_NAMES]
    for word in words:
        if not any(word in name for name in names):
            more = f"; and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
            raise ValueError(f"--only {word}: no setting has it; there are {'; '.join(shown)}{more}")
