"""Settings: the YAML files of `pag_inverse.configs`, and a user's own, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pag_inverse.settings.tables import (
    BETA_SCHEDULES,
    ENCODINGS,
    FAMILIES,
    PARTS,
    PROJECTIONS,
    SPACINGS,
    STEP_LIMITS,
    STEP_SCALINGS,
    TRAINING_STEPS,
    VARIANCES,
    BetaConfig,
    Hyperparameters,
    OperatorConfig,
    PriorConfig,
    SolverOptions,
    TaskConfig,
)
from pag_inverse.settings.reader import Section, check_choice, check_whole, parse_yaml

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = [
    "DATASETS",
    "EMBEDDED_PRIORS",
    "PRIORS",
    "SOLVERS",
    "TASKS",
    "BetaConfig",
    "Hyperparameters",
    "OperatorConfig",
    "PriorConfig",
    "SolverOptions",
    "TaskConfig",
    "load_prior_config",
    "load_task",
    "operator_size",
]

TASKS = ("box_inpainting", "super_resolution", "gaussian_deblur", "motion_deblur")
SOLVERS = ("dps", "psld")
EMBEDDED_PRIORS = {"dps": "pixel", "psld": "latent"}  # which of them a solver restores with
DATASETS = ("ffhq", "imagenet", "natural")
NOISES = ("gaussian", "none")
OPERATOR_SIZES = (256, 512)
_LARGE_FROM = 384  # image sizes from here on use the 512-pixel operators


def load_task(task: str | Path, dataset: str | None, solver: str, *, image_size: int, pag: bool) -> TaskConfig:
    """Read a task's operator, noise and, where a dataset is named, its row of the tables.

    `task` is one of TASKS or the path of a YAML file written like theirs; `image_size` in pixels picks the
    256- or the 512-pixel operator. An unknown name, a missing row and a faulty file are one-line ValueErrors.
    """
    check_choice("solver", solver, SOLVERS)
    check_whole("image_size", image_size, minimum=1)
    name, section = _open("task", task, TASKS)
    section.expect(required=("operator", "noise", "rows"))
    operators = _read_operators(section.section("operator"))
    noise = section.section("noise")
    noise.expect(required=("name", "sigma"), optional=("in_hole",))
    return TaskConfig(
        name=name,
        dataset=dataset,
        solver=solver,
        pag=pag,
        operator=operators[operator_size(dataset, image_size)],
        noise=noise.choice("name", NOISES),
        sigma=noise.number("sigma"),
        noise_in_hole="in_hole" not in noise or noise.flag("in_hole"),
        hyperparameters=_pick_row(section.section("rows"), dataset, solver, pag),
    )


def load_prior_config(name: str | Path) -> PriorConfig:
    """Read the settings of one of PRIORS, or of a YAML file written like theirs.

    An unknown name and a faulty file are one-line ValueErrors.
    """
    stem, section = _open("prior", name, PRIORS)
    section.expect(
        required=("family", "image_size", "dataset", "files", "hub", "size_mb", "betas", "licence", "source"),
        optional=("head_channels",),
    )
    hub_repo, hub_file = _read_hub(section)
    return PriorConfig(
        name=stem,
        family=section.choice("family", FAMILIES),
        image_size=section.whole("image_size", minimum=1),
        dataset=None if section.null("dataset") else section.text("dataset"),
        files=section.texts("files"),
        hub_repo=hub_repo,
        hub_file=hub_file,
        size_mb=section.number("size_mb"),
        betas=_read_betas(section.section("betas")),
        head_channels=None if section.null("head_channels") else section.whole("head_channels", minimum=1),
        licence=section.text("licence"),
        source=section.text("source"),
    )


def _open(kind: str, name: str | Path, known: tuple[str, ...]) -> tuple[str, Section]:
    """The plain name and the content of a shipped file or of a user's own."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path.stem, _read_file(str(path), path)
    if name not in known:
        there = ", ".join(known)
        raise ValueError(f"unknown {kind} {str(name)!r}; there are {there}, or the path of a .yaml file")
    return str(name), _read_file(f"{name}.yaml", _shipped(f"{kind}s").joinpath(f"{name}.yaml"))


def _read_file(source: str, file: Path | Traversable) -> Section:
    try:
        return parse_yaml(file.read_text(encoding="utf-8"), source)
    except OSError as error:
        raise ValueError(f"{source}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: not a text in UTF-8") from error


def _shipped(folder: str) -> Traversable:
    try:
        return resources.files("pag_inverse.configs").joinpath(folder)
    except ModuleNotFoundError as error:
        remedy = "pag_inverse is not installed: run `pip install -e .` in its repository"
        raise ModuleNotFoundError(remedy) from error


PRIORS = tuple(sorted(f.name[:-5] for f in _shipped("priors").iterdir() if f.name.endswith(".yaml")))


def operator_size(dataset: str | None, image_size: int) -> int:
    """Which of the two sizes' operators goes with pictures of a side.

    The embedded priors' rows were tuned at 256 pixels; the tables' at 256 (DPS) and 512 (PSLD).
    """
    return 256 if dataset == "natural" or image_size < _LARGE_FROM else 512


def _read_operators(section: Section) -> dict[int, OperatorConfig]:
    section.expect(required=("name", "settings"))
    name = section.choice("name", tuple(OPERATOR_SETTINGS))
    read, sizes = OPERATOR_SETTINGS[name], section.section("settings")
    sizes.expect(required=OPERATOR_SIZES)
    return {size: OperatorConfig(name, read(sizes.section(size))) for size in OPERATOR_SIZES}


def _read_box(section: Section) -> dict[str, object]:
    section.expect(required=("box", "margin", "position", "project"))
    return {
        "box": None if section.null("box") else section.whole("box", minimum=1),
        "margin": section.whole("margin"),
        "position": None if section.null("position") else section.wholes("position", count=4),
        "project": section.choice("project", PROJECTIONS),
    }


def _read_super_resolution(section: Section) -> dict[str, object]:
    section.expect(required=("scale", "project"))
    return {
        "scale": section.whole("scale", minimum=1),
        "project": section.choice("project", PROJECTIONS),
    }


def _read_gaussian_blur(section: Section) -> dict[str, object]:
    section.expect(required=("kernel_size", "std", "project"))
    return {
        "kernel_size": section.whole("kernel_size", minimum=1),
        "std": section.number("std"),
        "project": section.choice("project", PROJECTIONS),
    }


def _read_motion_blur(section: Section) -> dict[str, object]:
    section.expect(required=("kernel_size", "intensity", "center", "project"))
    return {
        "kernel_size": section.whole("kernel_size", minimum=1),
        "intensity": section.number("intensity", maximum=1.0),
        "center": section.flag("center"),
        "project": section.choice("project", PROJECTIONS),
    }


# One reader for each of operators.OPERATORS, so that a file is checked before anything heavy is imported.
OPERATOR_SETTINGS: dict[str, Callable[[Section], dict[str, object]]] = {
    "box_inpainting": _read_box,
    "super_resolution": _read_super_resolution,
    "gaussian_blur": _read_gaussian_blur,
    "motion_blur": _read_motion_blur,
}


def _read_rows(section: Section) -> dict[str, dict[str, Hyperparameters]]:
    """Every row of the file, by dataset and row name: a fault in one that is not asked for is found too."""
    rows: dict[str, dict[str, Hyperparameters]] = {}
    for dataset, solvers in section.sections().items():
        solvers.expect(required=(), optional=SOLVERS)
        rows[dataset] = {}
        for solver, pair in solvers.sections().items():
            pair.expect(required=(), optional=("with_pag", "without_pag"))
            for kind, row in pair.sections().items():
                rows[dataset][f"{solver}.{kind}"] = _read_row(row, solver, pag=kind == "with_pag")
    return rows


def _read_row(section: Section, solver: str, pag: bool) -> Hyperparameters:
    gamma = ("gamma",) if solver == "psld" else ()
    guidance = ("s", "layers") if pag else ()
    section.expect(required=("eta", *gamma, *guidance, "steps"), optional=("options",))
    return Hyperparameters(
        eta=section.number("eta"),
        gamma=section.number("gamma") if gamma else None,
        s=section.number("s") if pag else 0.0,
        layers=section.texts("layers") if pag else (),
        steps=section.whole("steps", minimum=1, maximum=TRAINING_STEPS),
        options=_read_options(section, solver),
    )


def _read_options(row: Section, solver: str) -> SolverOptions:
    default = SolverOptions()
    if "options" not in row:
        return default
    section = row.section("options")
    readers: dict[str, Callable[[], object]] = {
        "spacing": lambda: section.choice("spacing", SPACINGS),
        "step_scaling": lambda: section.choice("step_scaling", STEP_SCALINGS),
        "step_limit": lambda: section.choice("step_limit", STEP_LIMITS),
        "gradient_interval": lambda: section.whole("gradient_interval", minimum=1, maximum=TRAINING_STEPS),
        "gradient_part": lambda: section.choice("gradient_part", PARTS),
        "pag_interval": lambda: section.interval("pag_interval"),
        "noise_floor": lambda: section.number("noise_floor"),
    }
    if solver == "dps":
        readers["variance"] = lambda: section.choice("variance", VARIANCES)
    else:
        readers["renoise_prediction"] = lambda: section.flag("renoise_prediction")
        readers["encode"] = lambda: section.choice("encode", ENCODINGS)
        readers["ddim_eta"] = lambda: section.number("ddim_eta", maximum=1.0)
        readers["encode_interval"] = lambda: section.whole("encode_interval", minimum=1, maximum=TRAINING_STEPS)
    section.expect(required=(), optional=tuple(readers))
    changes: dict[str, Any] = {name: read() for name, read in readers.items() if name in section}
    return replace(default, **changes)


def _pick_row(section: Section, dataset: str | None, solver: str, pag: bool) -> Hyperparameters | None:
    rows = _read_rows(section)
    if dataset is None:
        return None
    row = f"{solver}.{'with_pag' if pag else 'without_pag'}"
    if dataset not in rows:
        there = ", ".join(rows) or "none"
        raise ValueError(f"unknown dataset {dataset!r}; the rows of {section.source} are for {there}")
    if row not in rows[dataset]:
        there = ", ".join(rows[dataset]) or "none"
        raise ValueError(f"{section.where(dataset)} has no row {row}; there are {there}")
    return rows[dataset][row]


def _read_hub(section: Section) -> tuple[str | None, str | None]:
    if section.null("hub"):
        return None, None
    hub = section.section("hub")
    hub.expect(required=("repo",), optional=("file",))
    return hub.text("repo"), None if hub.null("file") else hub.text("file")


def _read_betas(section: Section) -> BetaConfig:
    section.expect(required=("schedule", "start", "end"))
    return BetaConfig(
        schedule=section.choice("schedule", BETA_SCHEDULES),
        start=section.number("start", maximum=1.0),
        end=section.number("end", maximum=1.0),
    )
