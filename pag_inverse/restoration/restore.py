"""One call from a picture, a measurement or a problem to a restoration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators import GaussianNoise, Noise, NoNoise, Operator, make_operator, operator_class
from operators.validation import check_shape, short
from pag_inverse.guidance import Guidance, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import LatentPrior, Prior, load_prior
from pag_inverse.problem import InverseProblem, simulate, task_noise
from pag_inverse.restoration.kinds import Kind as PictureKind
from pag_inverse.restoration.kinds import as_measured, read_kind
from pag_inverse.restoration.loop import Callback, ChainResult, run_chain
from pag_inverse.restoration.request import DEFAULT_PRIOR
from pag_inverse.restoration.tiling import model_for
from pag_inverse.runtime.streams import batch_draw, operator_rng, stream_seed
from pag_inverse.settings import (
    AUTO,
    PAPER_TASKS,
    TASKS,
    Hyperparameters,
    Kind,
    OperatorConfig,
    check_whole,
    load_task,
    recommended_solver,
)
from pag_inverse.solvers import SOLVERS, Solver, default_solver, option_names, solver_class
from pag_inverse.solvers.step_sizes import settle

DEFAULT_TASK = "gaussian_deblur"  # whose rows an operator takes that is like none of the tasks'
ROWS = "natural"  # of the embedded priors; also those of a prior whose data set is not known


@dataclass(frozen=True)
class RestorationOutput:
    """Restorations of a batch of B pictures, S samples each.

    x: (B, S, 3, H, W), float32, clamped to [-1, 1]. residuals: ||y - A x|| over sigma sqrt(m), or over sqrt(m) where
    sigma is 0 or unknown, (B, S); about 1 is right where sigma is known. failed: (picture, sample) -> the step at which
    it left the finite numbers; its x is zero. problem: what was solved. stopped: whether a callback ended the run.

    >>> import torch
    >>> from pag_inverse import restore
    >>> output = restore(torch.zeros(1, 3, 64, 64), task="gaussian_deblur", steps=2, num_samples=2)
    >>> output.x.shape, output.mean.shape, output.std.shape, output.residuals.shape
    (torch.Size([1, 2, 3, 64, 64]), torch.Size([1, 3, 64, 64]), torch.Size([1, 3, 64, 64]), torch.Size([1, 2]))
    """

    x: Tensor
    residuals: Tensor
    failed: dict[tuple[int, int], int]
    problem: InverseProblem
    stopped: bool
    kind: PictureKind

    @property
    def images(self) -> Any:
        """The first sample of each picture, of the kind that was given: PIL images, arrays, or tensors."""
        return self.kind.back(self.x[:, 0])

    @property
    def mean(self) -> Tensor:
        """The mean of the samples, (B, 3, H, W)."""
        return self.x.mean(dim=1)

    @property
    def std(self) -> Tensor:
        """The standard deviation of the samples, (B, 3, H, W); zero for a single one."""
        return self.x.std(dim=1) if self.x.shape[1] > 1 else torch.zeros_like(self.x[:, 0])


def restore(
    image_or_problem: Any,
    *,
    task: str | Path | None = None,
    operator: Operator | None = None,
    sigma: float | None = None,
    prior: Any = None,
    solver: str | Solver | None = None,
    guidance: Guidance | None = None,
    steps: int | None = None,
    num_samples: int = 1,
    seed: int = 0,
    names: Sequence[str] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    callback: Callback | None = None,
) -> RestorationOutput:
    """Restore pictures from what was measured of them.

    `image_or_problem` is one of three things. An `InverseProblem` is solved. With `operator`, it is a measurement by
    that operator, with noise of standard deviation `sigma` on the [-1, 1] range where that is known. With `task`, a
    name of TASKS or a YAML file, it is a clean picture that is degraded as the task says, and then restored.

    Pictures are PIL images, arrays (H, W, 3) of uint8, arrays or tensors (3, H, W) or (B, 3, H, W) of floats in
    [-1, 1], or a list of them; `.images` returns the same kind and size. A picture may have any size.

    The result has `images` (the first sample of each picture), `x` (all samples), `mean`, `std`, `residuals`, `failed`
    and `problem` (what was solved): see `RestorationOutput`.

    prior: what `load_prior` takes, by default the solver's own embedded one. solver: a name or an object; by default,
    or as "auto", the one that the task recommends for the prior (with `operator`, the task that is most like it), or
    that of the paper, DPS or PSLD, where there is none, A is not linear, or the sigma of a measurement is not known.
    guidance: by default PAG with the row's scale and layers where the prior has those layers, no guidance where it has
    not. tile, overlap: of the prior, in pixels; by default pictures of more than twice the prior's side are seen in
    tiles of that side, which overlap by a quarter; 0 is no tile. steps: 1 to 1000, by default the row's. `names` key
    the random streams, by default "0", "1", ...
    `callback(done, steps, output)` is called after each step; `output` has `x0` (B, 3, H, W), `z` and `residual`.
    Returning True stops the run.
    ValueError: what does not fit.

    >>> import numpy as np
    >>> from pag_inverse import restore
    >>> picture = np.full((64, 64, 3), 128, dtype=np.uint8)
    >>> output = restore(picture, task="gaussian_deblur", steps=2)
    >>> output.images.shape, output.x.shape
    ((64, 64, 3), torch.Size([1, 1, 3, 64, 64]))
    """
    if not (solver is None or isinstance(solver, (str, Solver))):
        raise ValueError(f"solver is {short(solver)}; it must be a name, or an object such as DPS(eta=1.0)")
    for what, value in (("guidance", guidance), ("callback", callback)):
        if value is not None and (not callable(value) or isinstance(value, type)):
            raise ValueError(
                f"{what} is {short(value)}; it must be callable, such as PerturbedAttentionGuidance(s, layers)"
            )
    check_whole("num_samples", num_samples, minimum=1)
    check_whole("seed", seed)
    named = solver if solver is not None and solver != AUTO else None
    kind_of_solver = solver_class(named) if isinstance(named, str) else type(named) if named is not None else None
    prior = load_prior(
        prior if prior is not None else kind_of_solver.default_prior if kind_of_solver else DEFAULT_PRIOR
    )
    problem, kind, names = _problem(image_or_problem, task, operator, sigma, names, seed, prior)
    problem = problem.to(prior.device)
    wanted = task if task is not None else _task_like(problem.operator)
    known = operator is None or sigma is not None
    name = _solver_name(named, wanted, problem, prior, pag=guidance is None, sigma_is_known=known)
    row = _row(wanted, problem, prior, name, pag=guidance is None)
    if not isinstance(solver, Solver):
        _, height, width = problem.operator.in_shape
        given = {"renoise_prediction": False} if problem.noise.sigma == 0 else {}
        given = {key: value for key, value in given.items() if key in option_names(name)}
        settled = settle(name, row, prior, math.sqrt(height * width), given=given)
        solver, steps = settled.solver, settled.steps if steps is None else steps
    steps = row.steps if steps is None else steps
    chosen = guidance if guidance is not None else _guidance(row, prior)
    model = model_for(prior, chosen, problem.operator.in_shape, tile, overlap)
    results = []
    for sample in range(num_samples):
        seeds = [stream_seed(seed, image_name, "sampling", sample) for image_name in names]
        results.append(run_chain(problem, model, solver, steps, seeds, callback=callback))
        if results[-1].stopped:
            break
    return _output(results, problem, kind)


def _problem(
    given: Any,
    task: str | Path | None,
    operator: Operator | None,
    sigma: float | None,
    names: Sequence[str] | None,
    seed: int,
    prior: Prior,
) -> tuple[InverseProblem, PictureKind, Sequence[str]]:
    if sum(choice is not None for choice in (task, operator)) + isinstance(given, InverseProblem) != 1:
        raise ValueError(
            "give one of three: an InverseProblem; a measurement with operator=...; a clean picture with task=..."
        )
    if isinstance(given, InverseProblem):
        if sigma is not None:
            raise ValueError("sigma goes with a measurement; an InverseProblem has its noise")
        return given, PictureKind.tensors(), _names(names, len(given))
    x, kind = read_kind(given)
    names = _names(names, len(x))
    if operator is not None:
        known: Noise = NoNoise() if sigma is None else GaussianNoise(sigma)
        y = as_measured(x, operator)
        return InverseProblem(y * operator.observation_mask(y), operator, known), kind, names
    # Before anything is drawn for pictures that cannot be restored.
    prior.state_shape(prior.canvas_shape(tuple(x.shape[1:])))
    config = load_task(task or "", None, AUTO, image_size=int(min(x.shape[2:])), pag=False)
    rngs = [operator_rng(seed, name) for name in names]
    made = make_operator(config.operator.name, check_shape(x.shape[1:]), config.operator.settings, rngs)
    noise = task_noise(config, sigma)
    draw = batch_draw([stream_seed(seed, name, "measurement") for name in names])
    return simulate(x, made, noise, draw=draw, noise_in_hole=config.noise_in_hole), kind, names


def _names(names: Sequence[str] | None, count: int) -> Sequence[str]:
    names = [str(b) for b in range(count)] if names is None else names
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"{count} pictures need as many different names, not {list(names)}")
    return names


def _solver_name(
    given: str | Solver | None,
    task: str | Path,
    problem: InverseProblem,
    prior: Prior,
    *,
    pag: bool,
    sigma_is_known: bool,
) -> str:
    """The name that is given, or that of an object's class; else the task's for this prior, or else the paper's."""
    if isinstance(given, str):
        return given
    kind: Kind = "latent" if isinstance(prior, LatentPrior) else "pixel"
    if given is not None:
        return next((known for known, found in SOLVERS.items() if found is type(given)), default_solver(kind))
    name = recommended_solver(task, kind, prior.dataset or ROWS, pag=pag)
    usable = name is not None and (problem.operator.linear or not solver_class(name).linear_only)
    if name is None or not usable or not sigma_is_known:
        return default_solver(kind)
    return name


def _row(task: str | Path, problem: InverseProblem, prior: Prior, name: str, *, pag: bool) -> Hyperparameters:
    """The task's row for this solver and prior; without step sizes where there is none."""
    for dataset in (prior.dataset, ROWS):
        if dataset is None:
            continue
        try:
            config = load_task(task, dataset, name, image_size=int(min(problem.operator.in_shape[1:])), pag=pag)
        except ValueError:
            continue
        assert config.hyperparameters is not None
        return config.hyperparameters
    return Hyperparameters(steps=100)


def _task_like(operator: Operator) -> str:
    """The task whose operator is of the same class, or of a class that is most like it, with the most settings of the
    same value; the paper's where there are several."""
    for base in [base for base in type(operator).__mro__ if base not in Operator.__mro__]:
        found = [
            (sum(getattr(operator, name, None) == value for name, value in config.settings.items()), -number, task)
            for number, (task, config) in enumerate(_operators_of_tasks().items())
            if base in operator_class(config.name).__mro__
        ]
        if found:
            return max(found)[2]
    return DEFAULT_TASK


@cache
def _operators_of_tasks() -> dict[str, OperatorConfig]:
    """The operator of every task, the paper's first."""
    tasks = dict.fromkeys((*PAPER_TASKS, *TASKS))
    return {task: load_task(task, None, AUTO, image_size=256, pag=False).operator for task in tasks}


def _guidance(row: Hyperparameters, prior: Prior) -> Guidance:
    """PAG as the row has it, where the prior has its layers."""
    known = {word for layer in prior.layers() for word in (layer.checkpoint, layer.diffusers)}
    if row.s > 0 and set(row.layers) <= known:
        return PerturbedAttentionGuidance(row.s, row.layers, interval=row.pag_interval)
    return NoGuidance()


def _output(results: Sequence[ChainResult], problem: InverseProblem, kind: PictureKind) -> RestorationOutput:
    failed = {(b, s): step for s, result in enumerate(results) for b, step in result.failed.items()}
    x = torch.stack([result.x.float() for result in results], dim=1)
    for b, s in failed:
        x[b, s] = 0.0
    x = x.clamp(-1, 1)
    residuals = torch.stack([problem.relative_residual(x[:, s].to(problem.y)) for s in range(x.shape[1])], dim=1)
    return RestorationOutput(x, residuals, failed, problem, any(result.stopped for result in results), kind)
