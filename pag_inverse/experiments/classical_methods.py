"""Which classical methods go with which task, and their strengths, tuned on training pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pag_inverse.experiments import classical
from pag_inverse.experiments.trials import Trial, mean, scores

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


def methods_of(task: str) -> tuple[str, ...]:
    """The methods that go with a task."""
    return OF_TASK[task]


def apply(method: str, trial: Trial, strength: Any) -> Tensor:
    """The restoration (1, 3, n, n) of a trial of one picture, on the processor and clipped to [-1, 1]."""
    y = trial.problem.y
    restored = METHODS[method][0](trial.problem.operator.to("cpu"), y.cpu(), strength)
    return restored.clamp(-1, 1).to(y)


def tune(method: str, trial: Trial) -> Any:
    """The strength with the highest mean PSNR over the pictures of a trial; None for a method that has none."""
    strengths = METHODS[method][1]
    if len(strengths) == 1:
        return strengths[0]
    parts = trial.singles()
    found = {s: mean([scores(part, apply(method, part, s))["psnr"][0] for part in parts]) for s in strengths}
    return max(found, key=lambda s: found[s])
