"""The run of the solve command: check everything, restore batch by batch, write what came out."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from pag_inverse.data.images import list_images
from pag_inverse.guidance.perturbations import perturbation_lines
from pag_inverse.priors import Prior
from pag_inverse.restoration.batches import choose_batch_size, restore_all
from pag_inverse.restoration.measured import read_measurements
from pag_inverse.restoration.recipe import Recipe, make_recipe, request_prior
from pag_inverse.restoration.request import (
    FURTHER_OPTIONS,
    SolveRequest,
    check_request,
    resolve_solver,
)
from pag_inverse.restoration.subjects import Subject, read_subjects
from pag_inverse.restoration.summary import causes, least_residual, notices, residual_warning, summary
from pag_inverse.restoration.writing import SolveEntry, write
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.settings import field_lines
from pag_inverse.settings.files import check_file
from pag_inverse.solvers import SOLVERS, option_lines
from pag_inverse.storage.places import check_apart, check_writable
from pag_inverse.storage.run_store import RunStore

__all__ = ["find_inputs", "list_layers", "list_options", "make_run", "notices", "report", "solve_run", "summary"]


def solve_run(request: SolveRequest, inputs: Path | None, output: Path | None, overwrite: bool, dry_run: bool) -> int:
    """Restore a picture, a folder of pictures or a measurement into a folder; 1 if a picture failed.

    `inputs` None is the bundled photograph. Nothing is written before everything that can be checked was checked.
    """
    request = resolve_solver(request)
    folder = output or Path("results") / f"{Path(request.task).stem}_{request.solver}"
    given = (inputs, request.measurement, request.mask, request.kernel, request.truth)
    check_writable(folder)
    check_apart(folder, [path for path in given if path is not None])
    recipe, subjects, store = make_run(request, inputs, folder)
    if request.device == "cpu":
        settle_freed_memory(subjects[0].image[0].size, request.low_memory)
    names, made_of = [f"{subject.name}_measurement.npy" for subject in subjects], hashes(subjects)
    store.check(overwrite, made_of, names)
    if dry_run:
        tell(summary(recipe, subjects, folder, len(subjects), dry=True))
        return 0
    left = 0 if overwrite else len(store.survey(made_of, made_of).pending)
    tell(summary(recipe, subjects, folder, len(subjects) if overwrite else left))
    with store.open(overwrite):
        restore_missing(recipe, store, subjects)
    return report(store, subjects, least=least_residual(recipe), look_at=causes(recipe))


def tell(lines: Iterable[str]) -> None:
    """Print each line as soon as it is known."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def make_run(
    request: SolveRequest, inputs: Path | None, folder: Path, prior: Prior | None = None
) -> tuple[Recipe, list[Subject], RunStore]:
    """The objects of a run, its pictures and its store, which is not opened. ValueError: what does not fit."""
    paths = find_inputs(request, inputs)
    recipe = make_recipe(request, prior)
    if request.measurement is None:
        subjects = read_subjects(request, paths, recipe.size)
    else:
        subjects = [recipe.checked(subject) for subject in read_measurements(request, recipe.task, recipe.own)]
        for subject in subjects[1:]:
            recipe.for_example(subject)
    recipe = recipe.for_example(subjects[0])
    store = RunStore(folder, kind="solve", settings=recipe.describe(), entry=SolveEntry, told=("task", "prior"))
    return recipe, subjects, store


def find_inputs(request: SolveRequest, inputs: Path | None) -> list[Path]:
    """The pictures to degrade; ValueError where there are none."""
    if inputs is None:
        return []
    if request.measurement is not None:
        raise ValueError("--input is degraded here, --measurement is taken as it is: give one of them")
    if inputs.is_dir():
        return list_images(inputs)
    check_file(inputs)
    return [inputs]


def hashes(subjects: Sequence[Subject]) -> dict[str, str]:
    """The SHA-256 of each picture, by its name."""
    return {subject.name: subject.sha256 for subject in subjects}


def restore_missing(recipe: Recipe, store: RunStore, subjects: Sequence[Subject]) -> None:
    """Restore what is not there yet, with a bar of the steps."""
    inputs = hashes(subjects)
    survey = store.survey(inputs, inputs)
    for sentence in survey.damaged:
        print(sentence, file=sys.stderr)
    if survey.finished:
        print(f"{len(survey.finished)} of {len(subjects)} already finished", file=sys.stderr)
    left = [subject for subject in subjects if subject.name in survey.pending]
    if not left:
        return
    samples = len(left) * recipe.request.samples
    size = choose_batch_size(recipe, left[0], samples)
    if recipe.request.batch_size is None:
        print(f"batch size     {size}", file=sys.stderr)
    pause = 0.5 if sys.stderr.isatty() else 15.0  # a log that is not a terminal gets few lines
    with tqdm(total=math.ceil(samples / size) * recipe.settled.steps, unit="step", mininterval=pause) as bar:

        def tick(done: int, steps: int, residual: float | None) -> None:
            if residual is not None:
                bar.set_postfix_str(f"residual {residual:.2f}", refresh=False)
            bar.update()

        for subject, kept in restore_all(recipe, left, size, tick):
            if error := write(recipe, store, subject, kept):
                print(f"solve: {subject.name} {error}", file=sys.stderr)


def report(store: RunStore, subjects: Sequence[Subject], *, least: float | None = None, look_at: str = "sigma") -> int:
    """A line a picture, and where everything lies; 1 if one failed.

    A measurement whose residual lies below `least`, or above the noise, gets a warning, which names what to `look_at`;
    None judges none.
    """
    entries = store.entries()
    failed = False
    for subject in subjects:
        entry = entries.get(subject.name, {})
        metrics = entry.get("metrics", {}).items()
        scores = [f"{kind} {number(m['psnr']):.2f} dB, SSIM {number(m['ssim']):.3f}" for kind, m in metrics]
        error = entry.get("error")
        failed = failed or error is not None
        if error is None and entry.get("sigma"):
            scores.append(f"residual {number(entry['residual']):.2f} (1 is the noise)")
            residual = number(entry["residual"])
            if least is not None and (warning := residual_warning(residual, entry["sigma"], least, look_at)):
                print(f"warning: {subject.name}: {warning}", file=sys.stderr)
        print(f"{subject.name}: {'; '.join(scores) or (f'failed: {error}' if error else 'restored')}")
    print(f"written to {store.folder}")
    return 1 if failed else 0


def number(value: float | None) -> float:
    """A number of an entry; null is the PSNR of equal pictures, which is infinite."""
    return math.inf if value is None else value


def list_layers(request: SolveRequest) -> int:
    """Print the self-attention layers of a prior in the checkpoint's words and in diffusers'."""
    request = resolve_solver(request)
    check_request(request)
    prior = request_prior(request)
    rows = [("checkpoint", "diffusers"), *((layer.checkpoint, layer.diffusers) for layer in prior.layers())]
    width = max(len(a) for a, _ in rows)
    for ours, theirs in rows:
        print(f"{ours:{width}}  {theirs}")
    return 0


def list_options() -> int:
    """Print what `--set` takes: the options of each solver, and those of every run."""
    for name in SOLVERS:
        print(f"options of {name}:")
        print("\n".join(f"  {line}" for line in option_lines(name)))
    print("perturbations, --perturbation NAME:KEY=VALUE,KEY=VALUE:")
    print("\n".join(f"  {line}" for line in perturbation_lines()))
    print("options of every run:")
    print("\n".join(f"  {line}" for line in field_lines(SolveRequest, FURTHER_OPTIONS)))
    print("The values are the defaults; a task's row goes before them.")
    return 0
