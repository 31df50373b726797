"""Which classical methods go with which task, and their strengths, tuned on training pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pag_inverse.experiments import classical
from pag_inverse.experiments.trials import Problem, mean, scores

Method = Callable[[Any, Tensor, Any], Tensor]
# Each with the strengths that are tried; None has none.
METHODS: dict[str, tuple[Method, tuple[Any, ...]]] = {
    "measurement": (lambda operator, y, _: operator.enlarge(y), (None,)),
    "total_variation": (classical.total_variation, (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)),
    "wiener": (classical.wiener, (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    "richardson_lucy": (classical.richardson_lucy, (2, 4, 8, 16, 32)),
    "bicubic": (lambda operator, y, _: classical.bicubic(operator, y), (None,)),
    "biharmonic": (lambda operator, y, _: classical.biharmonic(operator, y), (None,)),
}
DEBLURRING = ("measurement", "total_variation", "wiener", "richardson_lucy")
OF_TASK = {
    "box_inpainting": ("measurement", "total_variation", "biharmonic"),
    "super_resolution": ("measurement", "bicubic", "total_variation"),
    "gaussian_deblur": DEBLURRING,
    "motion_deblur": DEBLURRING,
}


def of(task: str) -> tuple[str, ...]:
    return OF_TASK[task]


def apply(method: str, problem: Problem, strength: Any) -> Tensor:
    """The restoration (1, 3, n, n) of a problem of one picture, on the processor and clipped to [-1, 1]."""
    restored = METHODS[method][0](problem.operator.to("cpu"), problem.y.cpu(), strength)
    return restored.clamp(-1, 1).to(problem.y)


def tune(task: str, method: str, problem: Problem) -> Any:
    """The strength with the highest mean PSNR over the pictures of a problem."""
    strengths = METHODS[method][1]
    if len(strengths) == 1:
        return strengths[0]
    parts = [problem.single(b) for b in range(len(problem.names))]
    found = {s: mean([scores(part, apply(method, part, s))["psnr"][0] for part in parts]) for s in strengths}
    return max(found, key=lambda s: found[s])
