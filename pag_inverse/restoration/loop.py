"""The loop: from a measurement to a restoration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from operators import Draw, Noise, Operator
from pag_inverse.guidance import Explainer, Guidance, GuidedModel
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem
from pag_inverse.restoration.canvas import Canvas
from pag_inverse.runtime.streams import batch_draw
from pag_inverse.schedule import T
from pag_inverse.settings import check_whole
from pag_inverse.solvers import Solver, State, StepOutput

Callback = Callable[[int, int, StepOutput], object]


@dataclass(frozen=True)
class ChainResult:
    """What a chain ends with.

    x: restorations (B, 3, H, W), [-1, 1] up to overshoot; state: the last one; residuals: ||y - A(x0)|| over what was
    measured, (B, steps) in the order of execution, the one before where a step did not look at the image; failed:
    image of the batch -> the step (1 is the first) at which it left the finite numbers. A failed image leaves the
    others as they are; its x is not meaningful. stopped: whether a callback ended the chain early; then x is the last
    step's x0.

    >>> import torch
    >>> from operators import GaussianBlur, NoNoise
    >>> from pag_inverse import DPS, NoGuidance, load_prior, solve
    >>> y, operator = torch.zeros(1, 3, 64, 64), GaussianBlur((3, 64, 64), 9, 1.5)
    >>> result = solve(
    ...     y, operator, load_prior("pixel"), DPS(1.0), NoGuidance(), noise=NoNoise(), steps=2, seeds=[0]
    ... )
    >>> result.x.shape, result.residuals.shape, result.failed
    (torch.Size([1, 3, 64, 64]), torch.Size([1, 2]), {})
    """

    x: Tensor
    state: State
    residuals: Tensor
    failed: dict[int, int]
    stopped: bool = False

    @property
    def z(self) -> Tensor:
        """The final sample."""
        return self.state.z


def solve(
    y: Tensor,
    operator: Operator,
    prior: Prior,
    solver: Solver,
    guidance: Guidance,
    *,
    noise: Noise,
    steps: int,
    seeds: Sequence[int],
    callback: Callback | None = None,
    draw: Draw | None = None,
    explain: Explainer | None = None,
) -> ChainResult:
    """Restore a batch of measurements y (B, *operator.out_shape) with everything chosen by hand.

    See `run_chain`; `restore` chooses what is not given.

    >>> import torch
    >>> from operators import GaussianBlur, GaussianNoise
    >>> from pag_inverse import DPS, PerturbedAttentionGuidance, load_prior, solve
    >>> prior, operator = load_prior("pixel"), GaussianBlur((3, 64, 64), 9, 1.5)
    >>> guidance = PerturbedAttentionGuidance(2.0, ["up_blocks.1.attentions.1"])
    >>> y = torch.zeros(1, 3, 64, 64)
    >>> result = solve(
    ...     y, operator, prior, DPS(15.0), guidance, noise=GaussianNoise(0.05), steps=2, seeds=[0]
    ... )
    >>> result.x.shape
    torch.Size([1, 3, 64, 64])
    """
    problem = InverseProblem(y, operator, noise)
    model = GuidedModel(prior, guidance)
    return run_chain(problem, model, solver, steps, seeds, callback=callback, draw=draw, explain=explain)


def run_chain(
    problem: InverseProblem,
    model: GuidedModel,
    solver: Solver,
    steps: int,
    seeds: Sequence[int],
    *,
    callback: Callback | None = None,
    draw: Draw | None = None,
    explain: Explainer | None = None,
) -> ChainResult:
    """Restore the images of a problem, each with the random stream of its own seed.

    Pictures may have any size: where the prior cannot take theirs, the states live on a larger canvas (`Canvas`).

    `callback(done, steps, output)` is called after each step and ends the chain by returning True. `draw` replays
    recorded random numbers in place of the seeds. `explain` records what guidance did. Works under `no_grad` and
    `inference_mode`. ValueError: the prior cannot take the images, or a layer, the number of seeds or of steps does not
    fit.
    """
    check_whole("steps", steps, 1, T)
    if len(seeds) != len(problem):
        raise ValueError(f"{len(problem)} measurements need as many seeds, not {len(seeds)}")
    with torch.inference_mode(False), torch.no_grad():
        problem = _recordable(problem)
        canvas = Canvas.of(problem, model.prior)
        solver.check(canvas.problem, model.prior)
        problem = canvas.problem.white
        schedule = solver.schedule(model.prior, steps)
        draw, model = draw or batch_draw(seeds, problem.y.device), model.seeded(seeds)
        recording = None if explain is None else explain.start(model, len(problem), steps, canvas.picture)
        model = model if recording is None else recording.model
        state = solver.start(problem, model, schedule, draw)
        health = torch.zeros(len(problem), dtype=torch.long, device=problem.y.device)
        residuals: list[Tensor] = []
        stopped, x0 = False, None
        for done, i in enumerate(reversed(range(steps)), start=1):
            output = solver.step(state, i, problem, model, schedule, draw)
            if recording is not None:
                recording.step(done, schedule, i)
            if output.x0 is not None:
                x0 = canvas.picture(output.x0)
                output = replace(output, x0=x0)
            state = output.state
            health = first_failure(health, state.z, done)
            residuals.append(residuals[-1] if output.x0 is None and residuals else output.residual.detach())
            stopped = callback is not None and is_true(callback(done, steps, output))
            if stopped or bool((health > 0).all()):
                break
        x = x0 if stopped and x0 is not None else canvas.picture(solver.finish(state, model))
        health = first_failure(health, x, len(residuals))
    failed = {b: int(step) for b, step in enumerate(health.tolist()) if step}
    return ChainResult(x.detach(), state, torch.stack(residuals, dim=1), failed, stopped)


def is_true(answer: object) -> bool:
    """True, also of numpy or torch; anything else that a callback returns means nothing."""
    return type(answer).__name__ in ("bool", "bool_", "Tensor") and bool(answer)


def first_failure(health: Tensor, x: Tensor, step: int) -> Tensor:
    """The step at which each image was first not finite, 0 where it is finite."""
    finite = torch.isfinite(x).flatten(1).all(dim=1)
    return torch.where((health == 0) & ~finite, step, health)


def _recordable(problem: InverseProblem) -> InverseProblem:
    """The problem with tensors that autograd can record: those made under inference_mode are copied."""
    y = problem.y.clone() if problem.y.is_inference() else problem.y
    return InverseProblem(y.detach(), problem.operator.to(y.device), problem.noise)
