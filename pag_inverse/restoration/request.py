"""From parsed arguments to a checked request; nothing heavy is imported, so bad arguments are told at once."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pag_inverse.priors.checkpoints.picture_side import picture_side
from pag_inverse.settings.files import (
    DATASETS,
    EMBEDDED_PRIORS,
    PRIORS,
    SOLVERS,
    TASKS,
    Hyperparameters,
    OperatorConfig,
    SolverOptions,
    TaskConfig,
    load_task,
)
from pag_inverse.data.images import list_images
from pag_inverse.settings.presets import SPEEDS, preset
from pag_inverse.settings.reader import check_choice, check_interval

DEFAULT_PHOTOGRAPH = "astronaut"
TUNED_SIDE = 256  # of the embedded priors' rows; the published tables hold for one side


@dataclass(frozen=True)
class Request:
    """Everything a run is set to. `inputs` is empty for the bundled photograph; `row` has every override in it.

    `tuned_side`: the side of the pictures whose step sizes `row` holds, where they shall follow the picture's own;
    None where they are meant as they are. `tuned_chain`: the row whose steps, spacing and step scaling those of `sizes`
    (eta, gamma) were tuned for. `batch_size`: None is as many images as fit.
    """

    task: TaskConfig
    row: Hyperparameters
    tuned_side: int | None
    tuned_chain: Hyperparameters
    sizes: tuple[str, ...]
    speed: str
    prior: str
    inputs: tuple[Path, ...]
    measurement: Path | None
    mask: Path | None
    kernel: Path | None
    sigma: float | None
    prompt: str | None
    cfg: float
    size: int | None
    resize: str
    composite: str
    seed: int
    samples: int
    batch_size: int | None
    device: str
    precision: str
    tf32: bool | None
    compile: bool
    channels_last: bool
    low_memory: bool
    output: Path
    overwrite: bool
    dry_run: bool
    list_layers: bool
    weights_dir: Path | None
    prior_config: Path | None
    prediction: str | None
    download: bool


def resolve(args: argparse.Namespace) -> Request:
    """Check the arguments against each other and the tables; ValueError says what is wrong and what would be right."""
    if args.list_layers:
        args.task, args.solver = args.task or "motion_deblur", args.solver or "psld"
    for name, known in (("task", TASKS), ("solver", SOLVERS)):
        if getattr(args, name) is None:
            raise ValueError(f"--{name} is needed: {', '.join(known)}")
    _check_numbers(args)
    task = _load(args)
    return Request(
        task=task,
        row=_row(args, task),
        tuned_chain=_tuned_chain(args, task),
        sizes=_rescaled_sizes(args),
        speed=args.speed or "exact",
        tuned_side=TUNED_SIDE if task.dataset == "natural" and args.eta is args.gamma is None else None,
        prior=_prior(args),
        inputs=_inputs(args),
        measurement=args.measurement,
        mask=_existing(args.mask),
        kernel=_existing(args.kernel),
        sigma=_sigma(args, task),
        prompt=args.prompt,
        cfg=1.0 if args.cfg is None else args.cfg,
        output=args.output or Path("results") / f"{task.name}_{task.solver}",
        **{
            n: getattr(args, n)
            for n in (
                "size",
                "resize",
                "composite",
                "seed",
                "samples",
                "batch_size",
                "device",
                "precision",
                "tf32",
                "compile",
                "channels_last",
                "low_memory",
                "overwrite",
                "dry_run",
                "list_layers",
                "weights_dir",
                "prior_config",
                "prediction",
                "download",
            )
        },
    )


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("pag", "eta", "gamma", "sigma", "cfg", "ddim_eta"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{_flag(name)} is {value}; it must be a number that is not negative")
    for name in ("samples", "batch_size", "size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{_flag(name)} is {value}; it must be at least 1")
    for name in ("steps", "rescale_steps", "gradient_interval", "encode_interval"):
        value = getattr(args, name)
        if value is not None and not 1 <= value <= 1000:
            raise ValueError(f"{_flag(name)} is {value}; it must be from 1 to 1000")
    if args.pag_interval is not None:
        check_interval("--pag-interval", args.pag_interval)
    if args.speed is not None:
        check_choice("--speed", args.speed, SPEEDS)
    if args.seed < 0:
        raise ValueError(f"--seed is {args.seed}; it must not be negative")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", args.device):
        raise ValueError(f"unknown device {args.device!r}; there are cpu, cuda, cuda:N, mps")
    if args.precision == "float16" and args.device == "cpu":
        raise ValueError("--precision float16 is too slow on a processor; there is bfloat16")


def _load(args: argparse.Namespace) -> TaskConfig:
    if args.solver not in SOLVERS:
        raise ValueError(f"unknown solver {args.solver!r}; there are {', '.join(SOLVERS)}")
    if args.dataset is not None and args.dataset not in DATASETS:
        raise ValueError(f"unknown dataset {args.dataset!r}; there are {', '.join(DATASETS)}")
    prior = _prior(args)
    dataset = args.dataset
    if dataset is None and prior in EMBEDDED_PRIORS.values():
        dataset = "natural"
    complete = None not in (args.eta, args.pag) and (args.solver == "dps" or args.gamma is not None)
    if dataset is None and not complete and not args.list_layers:
        given = "--eta, --pag" + (" and --gamma" if args.solver == "psld" else "")
        raise ValueError(f"--dataset is needed with prior {prior} (ffhq or imagenet), unless {given} are given")
    size = args.size or picture_side(prior)
    task = load_task(args.task, dataset, args.solver, image_size=size, pag=args.pag != 0)
    settings = {**task.operator.settings, **_operator_overrides(args, task)}
    in_hole = task.noise_in_hole if args.noise_in_hole is None else args.noise_in_hole
    return replace(task, operator=OperatorConfig(task.operator.name, settings), noise_in_hole=in_hole)


def _operator_overrides(args: argparse.Namespace, task: TaskConfig) -> Mapping[str, object]:
    changes: dict[str, object] = {}
    if args.project is not None:
        changes["project"] = args.project
    if args.box is not None:
        if task.operator.name != "box_inpainting":
            raise ValueError(f"--box goes with the task box_inpainting, not with {task.name}")
        changes["position"] = tuple(args.box)
    return changes


def _row(args: argparse.Namespace, task: TaskConfig) -> Hyperparameters:
    """The table's row with what was given in place of it."""
    if args.gamma is not None and args.solver != "psld":
        raise ValueError("--gamma goes with --solver psld")
    row = preset(_table_row(args, task), args.speed or "exact", args.solver)
    changes: dict[str, Any] = {n: getattr(args, n) for n in ("eta", "gamma", "steps") if getattr(args, n) is not None}
    if args.pag is not None:
        changes["s"] = args.pag
    if args.layers is not None:
        changes["layers"] = tuple(args.layers)
    row = replace(row, **changes, options=_options(args, row.options))
    if row.s > 0 and not row.layers and not args.list_layers:
        raise ValueError("--layers is needed with --pag where no row of the tables is used; --list-layers prints them")
    return row if row.s > 0 else replace(row, layers=())


def _table_row(args: argparse.Namespace, task: TaskConfig) -> Hyperparameters:
    return task.hyperparameters or Hyperparameters(eta=args.eta or 0.0, gamma=args.gamma, s=args.pag or 0.0)


def _tuned_chain(args: argparse.Namespace, task: TaskConfig) -> Hyperparameters:
    """The table's row, with the number of steps that was given for its step sizes."""
    table = _table_row(args, task)
    return table if args.rescale_steps is None else replace(table, steps=args.rescale_steps)


def _rescaled_sizes(args: argparse.Namespace) -> tuple[str, ...]:
    """The step sizes to rescale: all that --rescale-steps speaks of; under a preset those of the table."""
    sizes = ("eta", "gamma") if args.solver == "psld" else ("eta",)
    if args.rescale_steps is not None:
        return sizes
    preset = args.speed not in (None, "exact")
    return tuple(name for name in sizes if preset and getattr(args, name) is None)


def _options(args: argparse.Namespace, options: SolverOptions) -> SolverOptions:
    own = {"psld": ("renoise_prediction", "encode", "ddim_eta", "encode_interval"), "dps": ("variance",)}
    shared = ("spacing", "step_scaling", "noise_floor", "step_limit", "gradient_interval", "gradient_part")
    for solver, names in own.items():
        for name in names:
            if getattr(args, name) is not None and args.solver != solver:
                raise ValueError(f"{_flag(name)} goes with --solver {solver}")
    changes = {n: getattr(args, n) for n in (*own[args.solver], *shared) if getattr(args, n) is not None}
    if args.pag_interval is not None:
        changes["pag_interval"] = tuple(args.pag_interval)
    if args.measurement is not None and args.sigma is None:
        changes.setdefault("renoise_prediction", False)  # its noise is not known
    return replace(options, **changes)


def _sigma(args: argparse.Namespace, task: TaskConfig) -> float | None:
    if args.sigma is not None:
        return float(args.sigma)
    return None if args.measurement is not None else task.sigma if task.noise == "gaussian" else 0.0


def _prior(args: argparse.Namespace) -> str:
    prior = args.prior or EMBEDDED_PRIORS.get(args.solver, "pixel")
    if prior not in PRIORS and not Path(prior).exists():
        raise ValueError(f"unknown prior {prior!r}; there are {', '.join(PRIORS)}, or the path of a checkpoint")
    return str(prior)


def _inputs(args: argparse.Namespace) -> tuple[Path, ...]:
    if args.measurement is not None:
        if args.input is not None:
            raise ValueError("--input is degraded here, --measurement is taken as it is: give one of them")
        _existing(args.measurement)
        needed = {"box_inpainting": "mask", "motion_deblur": "kernel"}.get(args.task)
        if needed and getattr(args, needed) is None:
            raise ValueError(f"--measurement with the task {args.task} needs --{needed}")
        return ()
    if args.mask is not None or args.kernel is not None:
        raise ValueError("--mask and --kernel go with --measurement")
    if args.input is None:
        return ()
    return tuple(list_images(args.input)) if args.input.is_dir() else (_existing(args.input),)


def _existing(path: Any) -> Any:
    if path is not None and not path.is_file():
        raise ValueError(f"{path}: no such file")
    return path


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
