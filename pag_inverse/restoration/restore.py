"""One call from a picture, a measurement or a problem to a restoration."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from operators import Operator
from operators.validation import short
from pag_inverse.guidance import Explainer, Guidance
from pag_inverse.priors import load_prior
from pag_inverse.problem import InverseProblem
from pag_inverse.restoration.defaults import guidance_of, row_for, solver_name, task_like
from pag_inverse.restoration.given import read_given
from pag_inverse.restoration.loop import Callback, ChainResult, run_chain
from pag_inverse.restoration.output import RestorationOutput, output_of
from pag_inverse.restoration.progress import step_bar
from pag_inverse.restoration.request import DEFAULT_PRIOR
from pag_inverse.restoration.summary import residual_warning
from pag_inverse.restoration.tiling import model_for
from pag_inverse.runtime.streams import stream_seed
from pag_inverse.settings import AUTO, check_whole
from pag_inverse.solvers import Solver, option_names, solver_class
from pag_inverse.solvers.step_sizes import settle

_LOG = logging.getLogger(__name__)


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
    explain: Explainer | None = None,
    progress: bool | None = None,
) -> RestorationOutput:
    """Restore pictures from what was measured of them.

    `image_or_problem` is one of three things. An `InverseProblem` is solved. With `operator`, it is a measurement by
    that operator, with noise of standard deviation `sigma` on the [-1, 1] range. Without it sigma is estimated from
    each measurement that is a picture (`noise_level.estimate_sigma`), and a warning says its value. With `task`, a name
    of TASKS or a YAML file, it is a clean picture that is degraded as the task says, and then restored.

    Pictures are PIL images, arrays (H, W, 3) of uint8, arrays or tensors (3, H, W) or (B, 3, H, W) of floats in
    [-1, 1], paths of files, or a list of them; `.images` returns the same kind (of a file, a PIL image) and size. A
    picture may have any size.

    The result has `images` (the first sample of each picture), `x` (all samples), `mean`, `std`, `residuals`, `failed`
    and `problem` (what was solved): see `RestorationOutput`. A warning
    names the pictures whose restoration does not agree with their measurement.

    prior: what `load_prior` takes, by default the solver's own embedded one. solver: a name or an object; by default,
    or as "auto", the one that the task recommends for the prior (with `operator`, the task that is most like it), or
    that of the paper, DPS or PSLD, where there is none, A is not linear, or sigma is neither given nor estimated.
    guidance: by default PAG with the row's scale and layers where the prior has those layers, no guidance where it has
    not. tile, overlap: of the prior, in pixels; by default pictures of more than twice the prior's side are seen in
    tiles of that side, which overlap by a quarter; 0 is no tile. steps: 1 to 1000, by default the row's. `names` key
    the random streams, by default "0", "1", ...
    `callback(done, steps, output)` is called after each step; `output` has `x0` (B, 3, H, W), `z` and `residual`.
    Returning True stops the run. explain: an `Explainer`, which records what guidance does to each picture.
    progress: a bar of the steps on stderr; by default where that is a terminal. On a GPU, torch's own switches hold:
    set `torch.backends.cudnn.allow_tf32 = False` for the numbers of the commands, which compute without TF32.
    ValueError: what does not fit.

    >>> import numpy as np
    >>> from pag_inverse import restore
    >>> picture = np.full((64, 64, 3), 128, dtype=np.uint8)
    >>> output = restore(picture, task="gaussian_deblur", steps=2)
    >>> output.images.shape, output.x.shape
    ((64, 64, 3), torch.Size([1, 1, 3, 64, 64]))
    """
    _check(solver, guidance, callback)
    check_whole("num_samples", num_samples, minimum=1)
    check_whole("seed", seed)
    named = solver if solver is not None and solver != AUTO else None
    kind_of_solver = solver_class(named) if isinstance(named, str) else type(named) if named is not None else None
    prior = load_prior(
        prior if prior is not None else kind_of_solver.default_prior if kind_of_solver else DEFAULT_PRIOR
    )
    given = read_given(image_or_problem, task, operator, sigma, names, seed, prior).to(prior.device)
    problem = given.problem
    wanted = task if task is not None else task_like(problem.operator)
    name = solver_name(named, wanted, problem, prior, pag=guidance is None, sigma_is_known=given.sigma_is_known)
    row = row_for(wanted, problem, prior, name, pag=guidance is None)
    if not isinstance(solver, Solver):
        _, height, width = problem.operator.in_shape
        options = {"renoise_prediction": False} if problem.noise.sigma == 0 else {}
        options = {key: value for key, value in options.items() if key in option_names(name)}
        settled = settle(name, row, prior, math.sqrt(height * width), given=options)
        solver, steps = settled.solver, settled.steps if steps is None else steps
    steps = row.steps if steps is None else steps
    chosen = guidance if guidance is not None else guidance_of(row, prior)
    model = model_for(prior, chosen, problem.operator.in_shape, tile, overlap)
    parts: list[tuple[InverseProblem, list[ChainResult]]] = []
    with step_bar(callback, progress, len(given.parts) * num_samples * steps) as watch:
        for part, part_names in given.parts:
            parts.append((part, []))
            for sample in range(num_samples):
                if any(result.stopped for _, results in parts for result in results):
                    break
                seeds = [stream_seed(seed, image_name, "sampling", sample) for image_name in part_names]
                parts[-1][1].append(run_chain(part, model, solver, steps, seeds, callback=watch, explain=explain))
    output = output_of(parts, problem, given.kind)
    if task is None and not output.stopped:
        _warn_of_residuals(output, given.names)
    return output


def _warn_of_residuals(output: RestorationOutput, names: Sequence[str]) -> None:
    """Tell which restorations of measurements do not agree with them."""
    for name, residual in zip(names, output.residuals[:, 0].tolist(), strict=True):
        if math.isfinite(residual):
            look_at = "the operator, sigma and the number of steps"
            said = residual_warning(residual, output.problem.noise.sigma, low=0.0, look_at=look_at)
            if said:
                _LOG.warning("picture %s: %s", name, said)


def _check(solver: Any, guidance: Any, callback: Any) -> None:
    """ValueError for arguments of another kind."""
    if not (solver is None or isinstance(solver, (str, Solver))):
        raise ValueError(f"solver is {short(solver)}; it must be a name, or an object such as DPS(eta=1.0)")
    for what, value in (("guidance", guidance), ("callback", callback)):
        if value is not None and (not callable(value) or isinstance(value, type)):
            raise ValueError(
                f"{what} is {short(value)}; it must be callable, such as PerturbedAttentionGuidance(s, layers)"
            )
