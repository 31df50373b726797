"""What a restoration is set to, validated: the same class serves the command line, evaluations and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pag_inverse.data.images import RESIZES
from pag_inverse.priors.checkpoints.picture_side import picture_side
from pag_inverse.settings import (
    PRIORS,
    TRAINING_STEPS,
    Count,
    Hyperparameters,
    Interval,
    Names,
    NonNegative,
    OperatorConfig,
    TaskConfig,
    load_prior_config,
    load_task,
    settings,
)
from pag_inverse.solvers import solver_class

Steps = Annotated[int, Field(ge=1, le=TRAINING_STEPS)]


def described(text: str) -> Any:
    """A field with a line for `--set help`."""
    return Field(description=text)


@settings
class SolveRequest:
    """Everything that a run of `solve` is set to; None is the task's, the row's or the prior's own.

    `options` are the solver's own, in place of the row's; `batch_size` None is as many images as fit.
    """

    task: str
    solver: str
    prior: str | None = None
    dataset: str | None = None
    measurement: Path | None = None
    mask: Path | None = None
    kernel: Path | None = None
    sigma: NonNegative | None = None
    box: tuple[int, int, int, int] | None = None
    prompt: str | None = None
    pag: NonNegative | None = None
    layers: Names | None = None
    cfg: NonNegative = 1.0
    steps: Steps | None = None
    speed: Literal["exact", "fast", "draft"] = "exact"
    options: Mapping[str, Any] = Field(default_factory=dict)
    pag_interval: Annotated[Interval | None, described("lowest and highest t / 1000 at which PAG acts")] = None
    tuned_steps: Annotated[Steps | None, described("step sizes are meant for so many steps: bring them to --steps")] = (
        None
    )
    project: Annotated[
        Literal["published", "adjoint"] | None, described("the map T of the gluing term: the table's, or A*")
    ] = None
    noise_in_hole: Annotated[bool | None, described("noise also where nothing was measured, as published")] = None
    resize: Annotated[
        Literal["bicubic", "reference"], described("of pictures: antialiased, or the published programs' way")
    ] = "bicubic"
    composite: Annotated[
        Literal["none", "measurement"], described("measurement: paste the measured pixels into the result")
    ] = "none"
    compile: Annotated[bool, described("torch.compile the networks: minutes to start, then faster")] = False
    channels_last: Annotated[bool, described("tensors of the networks with channels innermost")] = False
    tf32: Annotated[bool | None, described("10-bit factors in float32 products on a GPU; by default torch's choice")] = (
        None
    )
    size: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    samples: Count = 1
    batch_size: Count | None = 1
    device: Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")] = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    low_memory: bool = False
    weights_dir: Path | None = None
    prior_config: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    download: bool = False

    @property
    def prior_name(self) -> str:
        """The prior that is named, or the solver's own."""
        return self.prior or solver_class(self.solver).default_prior


# Fields that are set by `--set KEY=VALUE`, beside the solver's options.
FURTHER_OPTIONS = tuple(
    name
    for name, field in SolveRequest.__pydantic_fields__.items()  # type: ignore[attr-defined]
    if field.description
)
assert RESIZES == ("bicubic", "reference")


def check_request(request: SolveRequest) -> None:
    """ValueError where the values of a request do not go together; nothing is read but the names of files."""
    solver_class(request.solver)
    prior = request.prior_name
    if prior not in PRIORS and not Path(prior).exists():
        raise ValueError(f"unknown prior {prior!r}; there are {', '.join(PRIORS)}, or the path of a checkpoint")
    if request.precision == "float16" and request.device == "cpu":
        raise ValueError("--precision float16 is too slow on a processor; there is bfloat16")
    if request.measurement is None and (request.mask is not None or request.kernel is not None):
        raise ValueError("--mask and --kernel go with --measurement")
    for path in (request.measurement, request.mask, request.kernel):
        if path is not None and not path.is_file():
            raise ValueError(f"{path}: no such file")


def load_request(request: SolveRequest) -> tuple[TaskConfig, Hyperparameters]:
    """The task with the request's operator and noise, and the row with its guidance; ValueError where none fits.

    The row's solver options stay the table's own: `solvers.step_sizes.settle` puts the request's in their place.
    """
    check_request(request)
    side = request.size or picture_side(request.prior_name)
    task = load_task(request.task, _dataset(request), request.solver, image_size=side, pag=request.pag != 0)
    changes: dict[str, Any] = {}
    if request.project is not None:
        changes["project"] = request.project
    if request.box is not None:
        if "position" not in task.operator.settings:
            raise ValueError(f"--box goes with a task whose operator has a position, not with {task.name}")
        changes["position"] = request.box
    operator = OperatorConfig(task.operator.name, {**task.operator.settings, **changes})
    in_hole = task.noise_in_hole if request.noise_in_hole is None else request.noise_in_hole
    task = replace(task, operator=operator, noise_in_hole=in_hole)
    return task, _row(request, task)


def _dataset(request: SolveRequest) -> str | None:
    """Whose rows of the tables: named, or those that go with an embedded prior."""
    if request.dataset is not None:
        return request.dataset
    prior = request.prior_name
    if prior in PRIORS and (found := load_prior_config(prior)).hub_repo is None:
        return found.dataset
    sizes = solver_class(request.solver).STEP_SIZES
    missing = [f"--set {name}=..." for name in sizes if name not in request.options]
    if request.pag is None:
        missing.append("--pag")
    if missing:
        raise ValueError(f"--dataset is needed with prior {prior} (ffhq or imagenet), or {', '.join(missing)}")
    return None


def _row(request: SolveRequest, task: TaskConfig) -> Hyperparameters:
    """The table's row with the request's guidance and interval in place of its own."""
    row = task.hyperparameters or Hyperparameters(options=dict(request.options))
    changes: dict[str, Any] = {
        name: value
        for name, value in (("s", request.pag), ("layers", request.layers), ("pag_interval", request.pag_interval))
        if value is not None
    }
    row = replace(row, **changes)
    if row.s > 0 and not row.layers:
        raise ValueError("--layers is needed with --pag where no row of the tables is used; --list-layers prints them")
    return row if row.s > 0 else replace(row, layers=())
