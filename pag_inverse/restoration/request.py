"""From a request to its task and its row of the tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from operators import OPERATORS, Inpainting, check_settings, operator_class
from pag_inverse.guidance import make_combination, make_perturbation, spelling
from pag_inverse.priors.checkpoints.picture_side import picture_side, prior_kind
from pag_inverse.restoration.noise_level import PICTURES
from pag_inverse.settings import (
    AUTO,
    FURTHER_OPTIONS,
    PRIORS,
    Hyperparameters,
    OperatorConfig,
    SolveRequest,
    TaskConfig,
    load_prior_config,
    load_task,
    recommended_solver,
)
from pag_inverse.settings.files import check_file
from pag_inverse.settings.task import LARGE_FROM
from pag_inverse.solvers import default_solver, option_names, solver_class

__all__ = ["FURTHER_OPTIONS", "SolveRequest", "check_request", "load_request", "prior_name", "resolve_solver"]

GUIDANCE = ("layers", "pag_interval", "perturbation", "combination", "adaptive_scale")  # of a row and a request
DEFAULT_PRIOR = "pixel"  # where neither a prior nor a solver is named


def prior_name(request: SolveRequest) -> str:
    """The prior that is named, or the solver's own."""
    return request.prior or (DEFAULT_PRIOR if request.solver == AUTO else solver_class(request.solver).default_prior)


def resolve_solver(request: SolveRequest) -> SolveRequest:
    """The request with its solver and prior named where the solver is auto.

    It is the one that the task recommends for the kind of prior, where the rows that go with the prior have it; else
    the one of the paper. That one is taken, too, for a measurement whose sigma is neither known nor estimated, where it
    has a row: its step sizes do not follow sigma. ValueError: an unknown task, a faulty file, or an option that this
    solver lacks.
    """
    if request.solver != AUTO:
        return request
    prior, dataset = prior_name(request), _dataset_of_prior(request)
    kind = prior_kind(prior)
    solver = recommended_solver(request.task, kind, dataset, pag=request.pag != 0)
    sigma_is_known = request.noise_is_known or estimates_sigma(request) or is_noiseless(request)
    if solver is None or (not sigma_is_known and _has_row(request, dataset, default_solver(kind))):
        solver = default_solver(kind)
    for name in request.options:
        if name not in option_names(solver):
            raise ValueError(
                f"{name} is no option of {solver}, the solver of this task and prior; name another with --solver"
            )
    return replace(request, solver=solver, prior=prior)


def _has_row(request: SolveRequest, dataset: str | None, solver: str) -> bool:
    """Whether the task has a row of a solver."""
    try:
        load_task(request.task, dataset, solver, image_size=LARGE_FROM, pag=request.pag != 0)
    except ValueError:
        return False
    return True


def estimates_sigma(request: SolveRequest) -> bool:
    """Whether sigma is estimated from the measurement: it is not given, and the task's operator gives pictures."""
    if request.noise_is_known:
        return False
    task = load_task(request.task, None, AUTO, image_size=LARGE_FROM, pag=False)
    parts = task.operator.settings.get("operators", [{"name": task.operator.name}])
    kinds = [OPERATORS.get(part["name"]) for part in parts]
    return task.noise != "none" and all(kind is not None and issubclass(kind, PICTURES) for kind in kinds)


def is_noiseless(request: SolveRequest) -> bool:
    """Whether the task says that its measurements have no noise, so that there is no sigma to be known."""
    return load_task(request.task, None, AUTO, image_size=LARGE_FROM, pag=False).noise == "none"


def check_request(request: SolveRequest) -> None:
    """ValueError where the values of a request do not go together; nothing is read but the names of files."""
    solver_class(request.solver)
    prior = prior_name(request)
    if prior not in PRIORS and not Path(prior).exists():
        raise ValueError(f"unknown prior {prior!r}; there are {', '.join(PRIORS)}, or the path of a checkpoint")
    if request.precision == "float16" and request.device == "cpu":
        raise ValueError("--precision float16 is too slow on a processor; there is bfloat16")
    if request.perturbation is not None:
        make_perturbation(request.perturbation)
    if request.combination is not None:
        make_combination(request.combination)
    for condition, message in _contradictions(request):
        if condition:
            raise ValueError(message)
    for path in (request.measurement, request.mask, request.kernel, request.truth, request.prior_config):
        if path is not None and (path == request.prior_config or not path.is_dir()):
            check_file(path)


def _contradictions(request: SolveRequest) -> Iterator[tuple[bool, str]]:
    """Values that contradict each other or would do nothing, each with what is said of it."""
    measured, without_pag = request.measurement is not None, request.pag == 0
    holes = [request.mask, request.box, request.remove_colour]
    own: dict[str, object] = {"--mask": request.mask, "--kernel": request.kernel, "--truth": request.truth}
    own |= {"--remove-colour": request.remove_colour, "--grow": request.grow}
    yield (
        request.sigma is not None and request.peak is not None,
        "--sigma and peak are two noises; leave one of them out",
    )
    for flag, value in own.items():
        yield value is not None and not measured, f"{flag} goes with --measurement"
    yield (
        measured and sum(hole is not None for hole in holes) > 1,
        "--mask, --box and --remove-colour each say what is missing; give one of them",
    )
    yield request.mask is None and request.mask_convention == "white-missing", "--mask-convention goes with --mask"
    yield request.composite_edge > 0 and request.composite == "none", "--composite-edge goes with --composite"
    yield measured and request.size is not None, "--size is of pictures that are degraded; a measurement has its own"
    yield measured and request.whole, "--whole is of pictures that are degraded; a measurement has its own size"
    yield request.whole and request.size is not None, "--whole keeps the size of the pictures; leave --size out"
    yield request.overlap is not None and request.tile == 0, "--overlap does nothing with --tile 0"
    yield measured and request.noise_in_hole is not None, "noise_in_hole is of pictures that are degraded"
    yield measured and request.resize != "bicubic", "resize is of pictures that are degraded"
    yield without_pag and request.layers is not None, "--layers does nothing with --pag 0; leave one of them out"
    yield without_pag and request.pag_interval is not None, "pag_interval does nothing with --pag 0"
    yield without_pag and request.perturbation is not None, "--perturbation does nothing with --pag 0"
    yield without_pag and request.adaptive_scale is not None, "adaptive_scale does nothing with --pag 0"
    yield without_pag and request.combination is not None and request.cfg == 1, "combination does nothing with --pag 0"
    yield len(set(request.layers or ())) < len(request.layers or ()), "--layers: a layer is given twice"
    yield request.cfg != 1 and request.prompt is None, f"--cfg {request.cfg:g} does nothing without --prompt"
    yield request.tf32 is not None and request.device == "cpu", "tf32 is of a GPU; leave it out on a processor"


def load_request(request: SolveRequest) -> tuple[TaskConfig, Hyperparameters]:
    """The task with the request's operator and noise, and the row with its guidance; ValueError where none fits.

    The row's solver options stay the table's own: `solvers.step_sizes.settle` puts the request's in their place.
    """
    check_request(request)
    side = request.size or picture_side(prior_name(request))
    task = load_task(request.task, _dataset(request), request.solver, image_size=side, pag=request.pag != 0)
    changes: dict[str, Any] = {}
    if request.project is not None:
        changes["project"] = request.project
    check_settings(task.operator.name, task.operator.settings, f"{task.source}: operator.settings")
    inpaints = issubclass(operator_class(task.operator.name), Inpainting)
    if (request.remove_colour is not None or (request.measurement and request.box is not None)) and not inpaints:
        raise ValueError(f"--box and --remove-colour go with an inpainting task, not with {task.name}")
    if request.box is not None and request.measurement is None:
        if "position" not in task.operator.settings:
            raise ValueError(f"--box goes with a task whose operator has a position, not with {task.name}")
        changes["position"] = request.box
    if task.noise == "none" and request.measurement is not None and (request.sigma or request.peak is not None):
        flag = "--sigma" if request.sigma else "peak"
        raise ValueError(f"the task {task.name} says that its measurements have no noise; leave {flag} out")
    if request.scale is not None:
        changes |= _scaled(task, request.scale)
    if request.composite == "measurement" and not inpaints:
        raise ValueError(f"composite=measurement pastes known pixels: it goes with inpainting, not with {task.name}")
    operator = OperatorConfig(task.operator.name, {**task.operator.settings, **changes})
    in_hole = task.noise_in_hole if request.noise_in_hole is None else request.noise_in_hole
    task = replace(task, operator=operator, noise_in_hole=in_hole)
    return task, _row(request, task)


def _scaled(task: TaskConfig, scale: int) -> dict[str, Any]:
    """The settings of a task's super-resolution with another scale; ValueError where it has none."""
    settings = task.operator.settings
    if scale < 2:
        raise ValueError(f"--scale is {scale}; it is 2 or more: how many times larger the picture becomes")
    if "scale" in settings:
        return {"scale": scale}
    parts = [dict(part) for part in settings.get("operators", [])]
    scaled = [part for part in parts if "scale" in part["settings"]]
    if not scaled:
        raise ValueError(f"--scale goes with a super-resolution task, not with {task.name}")
    for part in scaled:
        part["settings"] = {**part["settings"], "scale": scale}
    return {"operators": parts}


def _dataset(request: SolveRequest) -> str | None:
    """Whose rows of the tables: named, or those that go with an embedded prior."""
    if (found := _dataset_of_prior(request)) is not None:
        return found
    prior = prior_name(request)
    sizes = solver_class(request.solver).STEP_SIZES
    missing = [f"--set {name}=..." for name in sizes if name not in request.options]
    if request.pag is None:
        missing.append("--pag")
    if missing:
        raise ValueError(
            f"prior {prior} needs a row of the tables: --dataset natural, ffhq or imagenet (evaluate: --rows), or "
            f"{', '.join(missing)}"
        )
    return None


def _dataset_of_prior(request: SolveRequest) -> str | None:
    """The dataset that is named, or the one that goes with a known prior."""
    if request.dataset is not None:
        return request.dataset
    prior = prior_name(request)
    return load_prior_config(prior).dataset if prior in PRIORS else None


def _row(request: SolveRequest, task: TaskConfig) -> Hyperparameters:
    """The table's row with the request's guidance and interval in place of its own."""
    row = task.hyperparameters or Hyperparameters(options=dict(request.options))
    given = {"s": request.pag, **{name: getattr(request, name) for name in GUIDANCE}}
    row = replace(row, **{name: value for name, value in given.items() if value is not None})
    if row.s > 0 and not row.layers:
        raise ValueError("--layers is needed with --pag where no row of the tables is used; --list-layers prints them")
    combination = spelling(make_combination(row.combination if row.s > 0 or request.cfg != 1 else "plain"))
    if row.s == 0:
        return replace(row, layers=(), perturbation="identity", adaptive_scale=0.0, combination=combination)
    return replace(row, perturbation=spelling(make_perturbation(row.perturbation)), combination=combination)
