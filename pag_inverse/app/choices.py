"""What a visitor of the page chooses, and the request of `solve` that it is."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from operators import Blur, Inpainting, MotionBlur, operator_class
from operators.validation import Peak, Sigma
from pag_inverse.restoration.request import estimates_sigma
from pag_inverse.settings import (
    AUTO,
    EXPLAIN_FORMATS,
    TASKS,
    TRAINING_STEPS,
    NonNegative,
    SolveRequest,
    has_row,
    load_prior_config,
    load_task,
    settings,
    validated,
)
from pag_inverse.settings.request import Colour
from pag_inverse.solvers import SOLVERS

NUMBERS = ("sigma", "peak", "pag", "steps", "seed")  # what is typed, and may be left out
PRIORS = ("pixel", "latent")  # the embedded ones: nothing is fetched
SIZES = (64, 128, 256)  # of the central square, in pixels
MOST_SAMPLES = 16
LABELS = {
    "denoise": "Noise",
    "inpaint": "A part is missing (scratch, stain, text)",
    "box_inpainting": "A large box is missing",
    "random_inpainting": "70 % of the pixels are missing",
    "super_resolution_x2": "2 times too small",
    "super_resolution_x3": "3 times too small",
    "super_resolution_x4": "4 times too small",
    "super_resolution": "8 times too small",
    "deblur": "Blurred by a known kernel",
    "gaussian_deblur": "Out of focus: Gaussian blur of 3 px",
    "motion_deblur": "Camera shake",
    "deblur_and_upscale": "Blurred a little and 4 times too small",
    "jpeg": "Strong JPEG compression",
    "colorize": "Grey: the colours are missing",
    "overexposed": "Overexposed: light above white is clipped",
    "poisson_denoise": "Few photons: Poisson noise",
    "phase_retrieval": "Phase retrieval: Fourier amplitudes",
}
# Tasks that draw their mask or kernel, which `inpaint` and `deblur` take as they are; and one whose y is no picture.
DRAWN = ("box_inpainting", "random_inpainting", "motion_deblur", "phase_retrieval")


@settings
class Choices:
    """What a visitor chose; None is the table's own.

    own: the picture is a measurement, else it is degraded here. size: the side of the central square that is degraded,
    in pixels; None keeps the whole picture. mask_convention: what white in a mask means. remove_colour: of what is
    missing, #RRGGBB or R,G,B, in place of a mask. sigma: on the [-1, 1] range. peak: photons at white. pag: scale s.
    explain: also make the strip of what guidance does.
    """

    task: str
    own: bool = False
    prior: Literal["pixel", "latent"] = "pixel"
    solver: str = AUTO
    size: Annotated[int, Field(ge=16, le=2**16)] | None = 256
    mask_convention: Literal["white-measured", "white-missing"] = "white-measured"
    remove_colour: Colour | None = None
    sigma: Sigma | None = None
    peak: Peak | None = None
    pag: NonNegative | None = None
    samples: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 1
    steps: Annotated[int, Field(ge=1, le=TRAINING_STEPS)] | None = None
    speed: Literal["exact", "fast", "draft"] = "exact"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    explain: bool = False


@dataclass(frozen=True)
class Files:
    """A visitor's files: the picture, and the mask or kernel of a measurement."""

    picture: Path
    mask: Path | None = None
    kernel: Path | None = None


def task_choices(own: bool) -> list[tuple[str, str]]:
    """(label, name) of each task, those that take a measurement of one's own where `own`."""
    order = [*LABELS, *(task for task in TASKS if task not in LABELS)]
    tasks = [task for task in order if task in TASKS and not (own and task in DRAWN)]
    return [(LABELS.get(task, task.replace("_", " ")), task) for task in tasks]


def needs_mask(task: str) -> bool:
    """Whether a measurement of the task goes with a mask."""
    return issubclass(operator_class(_operator(task)), Inpainting)


def takes_kernel(task: str) -> bool:
    """Whether a measurement of the task may bring its kernel."""
    return issubclass(operator_class(_operator(task)), Blur)


def counts_photons(task: str) -> bool:
    """Whether the noise of the task has a peak in place of a sigma."""
    return load_task(task, None, AUTO, image_size=256, pag=False).peak is not None


def needs_kernel(task: str) -> bool:
    """Whether a measurement of the task goes with a kernel, which a simulation draws."""
    return issubclass(operator_class(_operator(task)), MotionBlur)


def task_sigma(task: str) -> float:
    """The sigma with which a task degrades pictures."""
    return load_task(task, None, AUTO, image_size=256, pag=False).sigma


def estimated(task: str) -> bool:
    """Whether the sigma of a measurement of the task is estimated where it is not given."""
    return estimates_sigma(SolveRequest(task=task, measurement=Path()))


def solver_choices(task: str, prior: str) -> list[str]:
    """`auto`, and the solvers of an embedded prior that have a row in the task."""
    rows = load_prior_config(prior).dataset or ""
    fitting = [name for name, solver in SOLVERS.items() if solver.default_prior == prior]
    return [AUTO, *(name for name in fitting if has_row(task, rows, name, pag=True))]


def read_number(name: str, text: str | None) -> float | int | None:
    """A number as it was typed, None where the field is empty. ValueError: no number."""
    typed = (text or "").strip().replace(",", ".")
    if not typed:
        return None
    try:
        return int(typed) if typed.lstrip("+-").isdigit() else float(typed)
    except ValueError:
        raise ValueError(f"{name} is {typed[:20]!r}; it must be a number, or empty") from None


def make_request(choices: Choices, files: Files, device: str = "cpu") -> SolveRequest:
    """The request of `solve`; a mask or kernel that the task has no use for is left out.

    ValueError: a mask or kernel is missing, or values that do not go together.
    """
    photons = counts_photons(choices.task)
    simulated = {"size": choices.size, "whole": choices.size is None}
    given = {
        "task": choices.task,
        "solver": choices.solver,
        "prior": choices.prior,
        "sigma": None if photons else choices.sigma,
        "peak": choices.peak if photons else None,
        "pag": choices.pag,
        "samples": choices.samples,
        "steps": choices.steps,
        "speed": choices.speed,
        "seed": choices.seed,
        "device": device,
        "explain": EXPLAIN_FORMATS[:1] if choices.explain else (),
        **(_measured(choices, files) if choices.own else simulated),
    }
    return validated(SolveRequest, given)


def command(request: SolveRequest, files: Files) -> str:
    """The command line that gives the same result, with the files as they lie in the download."""
    picture = Path("inputs", files.picture.name)
    words: list[object] = ["pag-inverse", "solve", "--task", request.task]
    words += ["--measurement" if request.measurement else "--input", picture]
    for flag in ("mask", "kernel"):
        if (path := getattr(request, flag)) is not None:
            words += [f"--{flag}", Path("inputs", flag, path.name)]
    words += ["--mask-convention", request.mask_convention] if request.mask_convention == "white-missing" else []
    words += ["--remove-colour", request.remove_colour] if request.remove_colour is not None else []
    for flag in ("solver", "prior", "sigma", "pag", "samples", "steps", "speed", "size", "seed"):
        if (value := getattr(request, flag)) is not None:
            words += [f"--{flag}", value]
    words += ["--whole"] if request.whole else []
    words += ["--device", request.device] if request.device != "cpu" else []
    words += ["--set", f"peak={request.peak:g}"] if request.peak is not None else []
    words += ["--explain", *request.explain] if request.explain else []
    return shlex.join([*map(str, words), "--output", "again"])


def _operator(task: str) -> str:
    return load_task(task, None, AUTO, image_size=256, pag=False).operator.name


def _measured(choices: Choices, files: Files) -> dict[str, object]:
    """The picture as a measurement, with its mask or colour and its kernel, as far as its task takes them."""
    task, given = choices.task, {"measurement": files.picture}
    if takes_kernel(task):
        if needs_kernel(task) and files.kernel is None:
            raise ValueError("the kernel is missing: upload it as a .npy array or a grey picture, both sides odd")
        return {**given, "kernel": files.kernel}
    if not needs_mask(task):
        return {**given}
    if files.mask is None and choices.remove_colour is None:
        raise ValueError("what is missing is not marked: paint over it, upload a mask, or name its colour")
    if choices.remove_colour is None:
        return {**given, "mask": files.mask, "mask_convention": choices.mask_convention}
    if files.mask is not None:
        raise ValueError("what is missing is marked twice: remove the colour, or the paint and the mask")
    return {**given, "remove_colour": choices.remove_colour}
