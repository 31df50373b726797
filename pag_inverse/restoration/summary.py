"""What a person is told before a run, and of its residuals afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from operators import Blur, Inpainting, operator_class
from pag_inverse.restoration.batches import first_step
from pag_inverse.restoration.measured import kernel_notices, unused_notices
from pag_inverse.restoration.noise_level import describe_sigma
from pag_inverse.restoration.recipe import Recipe
from pag_inverse.restoration.request import prior_name
from pag_inverse.restoration.subjects import Subject

# Residuals of diffpir with the right sigma, photographs of 128 pixels: 0.9 to 1.1; of inpainting 0.4 to 0.5, where
# known pixels stay nearly as they are. With three times the sigma: 0.3 to 0.7.
LOW, HIGH = 0.7, 1.5
SEEN = 2 / 127.5  # on [-1, 1]: differences of two levels of 255
MOST = 12  # notices of single measurements


def summary(recipe: Recipe, subjects: Sequence[Subject], folder: Path, left: int, dry: bool = False) -> Iterator[str]:
    """What a person wants to know before a run, of which `left` pictures are to be made; the manifest has all of it.

    The lines come one by one: the time of a step is measured, which takes long for a large picture.

    A `dry` run compiles no networks, so it cannot tell the time of compiled ones.
    """
    request, settled = recipe.request, recipe.settled
    sizes = [f"{name} {getattr(settled.solver, name):.4g}" for name in settled.solver.STEP_SIZES]
    pag = f"PAG s = {recipe.row.s:g} at {', '.join(recipe.row.layers)}" if recipe.row.s > 0 else "no PAG"
    further = [f"{name.replace('_', ' ')} {value}" for name, value in recipe.row.further_guidance().items()]
    known = recipe.sigma_is_known or recipe.task.noise == "none"
    sigma = str(recipe.noise) if known else "sigma unknown"
    if recipe.estimates_sigma:
        sigma = "sigma estimated"
    sides = [f"{height} x {width}" for height, width in sorted({subject.image.shape[1:] for subject in subjects})]
    size = sides[0] if len(sides) == 1 else f"{sides[0]} to {sides[-1]}"
    count = f"{len(subjects)} pictures" if len(subjects) > 1 else subjects[0].source
    yield from [
        f"task       {recipe.task.name}, {sigma}",
        f"solver     {', '.join([request.solver, f'{settled.steps} steps', *sizes])}; {', '.join([pag, *further])}",
        f"prior      {prior_name(request)} on {request.device}, {request.precision}",
        f"picture    {count}, {size}, {request.samples} sample{'s' if request.samples > 1 else ''} each",
        f"output     {folder}",
    ]
    if left and not (dry and request.compile):
        seconds = left * request.samples * settled.steps * seconds_of_step(recipe, subjects[0])
        yield f"time       about {tqdm.format_interval(seconds)}"
    yield from [*notices(recipe), *notices_of_subjects(subjects)]


def notices(recipe: Recipe) -> list[str]:
    """What may make a restoration worse than a person expects."""
    request, found = recipe.request, []
    if not recipe.sigma_is_known and recipe.task.noise != "none":
        found.append("notice     sigma is unknown: --sigma makes the restoration better")
    found += [f"notice     {said}" for said in [*kernel_notices(request, recipe.task), *unused_notices(request)]]
    given = request.tuned_steps is not None or set(recipe.settled.solver.STEP_SIZES) <= set(request.options)
    if request.steps is not None and request.steps < recipe.row.steps and request.speed == "exact" and not given:
        found.append(
            f"notice     the step sizes are meant for {recipe.row.steps} steps, not {request.steps}: "
            "--speed draft or fast fits them"
        )
    same = recipe.settled.steps == recipe.row.steps and recipe.settled.chain == 1
    if request.speed != "exact" and request.steps is None and same:
        found.append(
            f"notice     --speed {request.speed} changes nothing: this row of {request.solver} has "
            f"{recipe.row.steps} steps, and no shorter preset"
        )
    return found


def notices_of_subjects(subjects: Sequence[Subject]) -> list[str]:
    """The estimates of sigma, and what else is to be known of single measurements: of the first ones, and how many."""
    found = []
    for subject in subjects:
        name = f"{subject.name}: " if len(subjects) > 1 else ""
        if subject.sigma is not None:
            jpeg = (
                "; it is a JPEG, whose noise is uneven: --task jpeg restores what it lost"
                if is_jpeg(subject.source)
                else ""
            )
            found.append(f"notice     {name}{describe_sigma(subject.sigma, 'by --sigma')}{jpeg}")
        found += [f"notice     {name}{said}" for said in subject.notices]
    return [*found[:MOST], *([f"notice     and {len(found) - MOST} more"] if len(found) > MOST else [])]


def is_jpeg(source: str) -> bool:
    """Whether a file is a JPEG by its name."""
    return Path(source).suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif")


def least_residual(recipe: Recipe) -> float | None:
    """The least residual of a measurement that is near the noise; None for what is simulated."""
    return None if recipe.request.measurement is None else low_limit(recipe)


def low_limit(recipe: Recipe) -> float:
    """The least residual that is near the noise: LOW, or none for inpainting, which keeps known pixels as they are."""
    return 0.0 if issubclass(operator_class(recipe.task.operator.name), Inpainting) else LOW


def causes(recipe: Recipe) -> str:
    """What may make the residual of a recipe's measurement large."""
    kind = operator_class(recipe.task.operator.name)
    found = ["sigma (too small?)", "the steps (too few?)"]
    if issubclass(kind, Blur):
        found.insert(0, "the kernel (its size, or turned by 180 degrees)")
    if issubclass(kind, Inpainting):
        found.insert(0, "the mask's convention")
    return ", ".join(found)


def off_noise(residual: float, sigma: float, low: float = LOW) -> int:
    """1 for a residual, in units of sigma, above HIGH, -1 for one below `low`, else 0.

    One above HIGH means nothing where it is below SEEN: clean pictures end at two or three times their sigma.
    """
    if residual > HIGH:
        return 0 if residual * sigma < SEEN else 1
    return -1 if residual < low else 0


def residual_warning(residual: float, sigma: float, low: float = LOW, look_at: str = "sigma") -> str:
    """What a residual, in units of sigma, that is not between `low` and HIGH may mean; empty where it is.

    `look_at` names the likely causes of a large one.
    """
    side = off_noise(residual, sigma, low)
    if side == 0:
        return ""
    if side > 0:
        return (
            f"the residual is {residual:.2f} times the noise: the restoration does not agree with the "
            f"measurement; look at {look_at}"
        )
    return (
        f"the residual is {residual:.2f} times the noise: sigma is probably too large, and detail is lost; "
        "give a smaller --sigma"
    )


def seconds_of_step(recipe: Recipe, subject: Subject) -> float:
    """The time of one step of one picture, the second of two: the first one also makes what is made once."""
    started = time.monotonic()
    for _ in range(2):
        started = time.monotonic()
        first_step(recipe, [subject])
    return time.monotonic() - started
