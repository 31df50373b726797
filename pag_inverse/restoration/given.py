"""What restore() is given, as inverse problems."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators import GaussianNoise, Operator, make_operator
from operators.validation import check_shape
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem, simulate, task_noise
from pag_inverse.restoration.kinds import Kind as PictureKind
from pag_inverse.restoration.kinds import as_measured, read_kind
from pag_inverse.restoration.noise_level import describe_sigma, sigma_of
from pag_inverse.runtime.streams import batch_draw, operator_rng, stream_seed
from pag_inverse.settings import AUTO, load_task

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """The problem of all pictures, their names, and how pictures go back.

    `sigma_is_known`: it was given, or estimated. Where several measurements have an estimated sigma each, `singles` are
    the problems that are solved, one a picture; the noise of `problem` has the root of their mean square.
    """

    problem: InverseProblem
    names: Sequence[str]
    kind: PictureKind
    sigma_is_known: bool = True
    singles: tuple[InverseProblem, ...] = ()

    @property
    def parts(self) -> list[tuple[InverseProblem, Sequence[str]]]:
        """The problems that are solved, each with the names of its pictures."""
        if not self.singles:
            return [(self.problem, self.names)]
        return [(single, [name]) for single, name in zip(self.singles, self.names, strict=True)]

    def to(self, device: torch.device | str) -> Given:
        """The same on another device."""
        return replace(self, problem=self.problem.to(device), singles=tuple(p.to(device) for p in self.singles))


def read_given(
    given: Any,
    task: str | Path | None,
    operator: Operator | None,
    sigma: float | None,
    names: Sequence[str] | None,
    seed: int,
    prior: Prior,
) -> Given:
    """A problem as it is, a measurement by `operator`, or a clean picture that is degraded as `task` says.

    ValueError: what does not go together, or does not fit.
    """
    if sum(choice is not None for choice in (task, operator)) + isinstance(given, InverseProblem) != 1:
        raise ValueError(
            "give one of three: an InverseProblem; a measurement with operator=...; a clean picture with task=..."
        )
    if isinstance(given, InverseProblem):
        if sigma is not None:
            raise ValueError("sigma goes with a measurement; an InverseProblem has its noise")
        return Given(given, _names(names, len(given)), PictureKind.tensors())
    x, kind = read_kind(given)
    names = _names(names, len(x))
    if operator is not None:
        return _measured(x, kind, operator, sigma, names)
    return Given(_simulated(x, task or "", sigma, names, seed, prior), names, kind)


def _simulated(
    x: Tensor, task: str | Path, sigma: float | None, names: Sequence[str], seed: int, prior: Prior
) -> InverseProblem:
    # Before anything is drawn for pictures that cannot be restored.
    prior.state_shape(prior.canvas_shape(tuple(x.shape[1:])))
    config = load_task(task, None, AUTO, image_size=int(min(x.shape[2:])), pag=False)
    rngs = [operator_rng(seed, name) for name in names]
    made = make_operator(config.operator.name, check_shape(x.shape[1:]), config.operator.settings, rngs)
    noise = task_noise(config, sigma)
    draw = batch_draw([stream_seed(seed, name, "measurement") for name in names])
    return simulate(x, made, noise, draw=draw, noise_in_hole=config.noise_in_hole)


def _measured(x: Tensor, kind: PictureKind, operator: Operator, sigma: float | None, names: Sequence[str]) -> Given:
    """A measurement with noise of the sigma that is given, or else of the estimate of each picture."""
    y = as_measured(x, operator)
    y = y * operator.observation_mask(y)
    if sigma is not None:
        return Given(InverseProblem(y, operator, GaussianNoise(sigma)), names, kind)
    unknown = InverseProblem(y, operator)
    parts = [unknown.select([b]) for b in range(len(y))]
    sigmas = [found for part in parts if (found := sigma_of(part.y, part.operator)) is not None]
    if len(sigmas) < len(y):  # an operator that is not linear and has a posterior mean knows its own noise
        return Given(unknown, names, kind, sigma_is_known=operator.has_posterior_mean and not operator.linear)
    for name, level in zip(names, sigmas, strict=True):
        _LOG.warning("%s%s", f"picture {name}: " if len(sigmas) > 1 else "", describe_sigma(level))
    whole = InverseProblem(y, operator, GaussianNoise(math.sqrt(sum(level**2 for level in sigmas) / len(sigmas))))
    if len(sigmas) == 1:
        return Given(whole, names, kind)
    singles = [InverseProblem(p.y, p.operator, GaussianNoise(level)) for p, level in zip(parts, sigmas, strict=True)]
    return Given(whole, names, kind, singles=tuple(singles))


def _names(names: Sequence[str] | None, count: int) -> Sequence[str]:
    names = [str(b) for b in range(count)] if names is None else names
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"{count} pictures need as many different names, not {list(names)}")
    return names
