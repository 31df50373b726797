"""Ablation: what each option of a row costs and gains, on the same measurements, paired by picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from pag_inverse.experiments import trials
from pag_inverse.experiments.counting import Passes, counted_model
from pag_inverse.experiments.entries import AblationEntry
from pag_inverse.experiments.methods import Method, check_words, digest, training_pictures
from pag_inverse.experiments.trials import Trial
from pag_inverse.guidance import make_perturbation, spelling
from pag_inverse.metrics.statistics import Estimate, estimate, paired_difference
from pag_inverse.priors import Prior, load_prior
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.schedule import T
from pag_inverse.settings import (
    SPEEDS,
    TASKS,
    Count,
    Hyperparameters,
    Names,
    NonNegative,
    check_choice,
    check_different,
    load_task,
    settings,
)
from pag_inverse.settings.request import Device
from pag_inverse.solvers import SOLVERS, Solver, solver_class
from pag_inverse.solvers.step_sizes import settle, with_options
from pag_inverse.storage.entries import Entry
from pag_inverse.storage.files import file_sha256
from pag_inverse.storage.finding import check_gathers, find_runs
from pag_inverse.storage.places import check_apart
from pag_inverse.storage.run_store import RunStore

OWN, REFERENCE = "the row as it is", "1000 steps"
SCORES = ("psnr", "ssim")
HEAD = ("setting", "against", "n", "passes", "times faster", "PSNR, dB", "SSIM", "dPSNR, dB", "dSSIM")


@settings
class AblationRequest:
    """What is measured, and on what.

    `tasks` holds the task of each solver of `solvers`, in the same order, or one for all; `only` keeps the settings
    whose name has one of these words in it, and what they are held against. `perturbations` are tried in place of the
    row's.
    `reference_scale` multiplies the step sizes of 1000 steps, which the rule makes of the row's. `first` keeps only so
    many of the pictures.
    """

    data: Path
    output: Path
    solvers: Names = tuple(SOLVERS)
    tasks: Names = ("gaussian_deblur",)
    reference_scale: NonNegative = 1.0
    only: Names = ()
    perturbations: Names = ()
    pictures: Count = 8
    first: Count | None = None
    size: Count = 128
    batch_size: Count = 2
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    seed: int = 0
    device: Device = "cpu"
    table_only: bool = False


@dataclass(frozen=True)
class Variant:
    """A method, and the name of the variant that its quality is held against."""

    name: str
    method: Method
    against: str


def ablate(request: AblationRequest) -> int:
    """Measure what was not measured yet, and print a table for each solver; 1 where a restoration failed."""
    check_apart(request.output, [request.data])
    check_gathers(request.output, request.data)
    tasks = request.tasks * len(request.solvers) if len(request.tasks) == 1 else request.tasks
    if len(tasks) != len(request.solvers):
        raise ValueError(f"{len(tasks)} tasks for {len(request.solvers)} solvers; give one, or one for each solver")
    check_different("--solvers", request.solvers)
    check_different("--perturbations", request.perturbations)
    for solver, task in zip(request.solvers, tasks, strict=True):
        solver_class(solver)
        check_choice("task", task, TASKS)
    if request.device == "cpu":
        settle_freed_memory(request.size**2)
    prepared = [prepare(request, solver, task) for solver, task in zip(request.solvers, tasks, strict=True)]
    check_words(request.only, list(dict.fromkeys(v.name for ablation in prepared for v in ablation.variants)))
    failed = False
    for ablation in prepared:
        if not request.table_only:
            ablation.measure(request)
        print(ablation.table())
        failed = failed or bool(ablation.store.failures())
    return 1 if failed else 0


@dataclass(frozen=True)
class Ablation:
    """The ablation of one solver: everything about it is checked, and nothing written."""

    title: str
    store: RunStore
    variants: Sequence[Variant]
    keys: Mapping[str, Mapping[str, str]]
    trial: Trial
    prior: Prior

    def measure(self, request: AblationRequest) -> None:
        """Measure what was not measured yet."""
        with self.store.open():
            for variant in chosen(self.variants, request.only):
                measure(self.store, variant, self.keys[variant.name], self.trial, self.prior, request.batch_size)

    def table(self) -> str:
        """Its table, and a line for each restoration that failed."""
        entries, failures = self.store.entries(), self.store.failures()
        found = {
            name: {p: entries[key] for p, key in of.items() if key in entries and key not in failures}
            for name, of in self.keys.items()
        }
        return "\n".join([self.title, table(self.variants, found), *(f"failed: {e}" for e in failures.values())])


def prepare(request: AblationRequest, solver: str, task: str) -> Ablation:
    """Check and read everything that the ablation of one solver needs; ValueError for what does not fit."""
    config = load_task(task, "natural", solver, image_size=trials.SIDE, pag=True)
    assert config.hyperparameters is not None
    prior = load_prior(solver_class(solver).default_prior, device=request.device, precision=request.precision)
    files = dict(list(training_pictures(request.data, request.pictures, request.output).items())[: request.first])
    truths = trials.read_truths(list(files.values()), request.size).to(prior.device)
    trial = trials.make_trial(config, list(files), truths, request.seed)
    names = ("size", "seed", "precision", "device")
    store = RunStore(
        request.output / f"{task}_{solver}",
        kind="ablation",
        settings={"task": task, "solver": solver, **{name: getattr(request, name) for name in names}}
        | trials.described(config),
        item="restoration",
        entry=AblationEntry,
    )
    store.check()
    if request.table_only:
        find_runs(store.folder, store.kind)
    variants = make_variants(
        solver, config.hyperparameters, prior, request.size, request.reference_scale, request.perturbations
    )
    if not chosen(variants, request.only):
        there = ", ".join(variant.name for variant in variants)
        raise ValueError(f"--only {' '.join(request.only)}: no setting of {solver} has it; there are {there}")
    for variant in variants:
        variant.method.check(prior, trial.problem)
    contents = {name: file_sha256(file) for name, file in files.items()}
    keys = {variant.name: _keys(variant.method, prior, contents) for variant in variants}
    return Ablation(f"{task}, {solver}, {request.size} px", store, variants, keys, trial, prior)


def chosen(variants: Sequence[Variant], words: Sequence[str]) -> list[Variant]:
    """The variants with one of these words in their name, by default all, and those that they are held against."""
    kept = [variant for variant in variants if not words or any(word in variant.name for word in words)]
    names = {name for variant in kept for name in (variant.name, variant.against)}
    return [variant for variant in variants if variant.name in names]


def _keys(method: Method, prior: Prior, contents: Mapping[str, str | None]) -> dict[str, str]:
    """What a restoration of each picture is known by: the method, the weights and the picture's content."""
    made_of = [method.describe(), prior.fingerprint]
    return {picture: f"{picture}/{digest([*made_of, content])}" for picture, content in contents.items()}


def make_variants(
    solver: str, row: Hyperparameters, prior: Prior, side: int, scale: float = 1.0, perturbations: Sequence[str] = ()
) -> list[Variant]:
    """Everything that is measured for one row.

    Numbers of steps and presets are made of 1000 steps, which the rule makes of the row, with `scale` times its step
    sizes. Options that leave out or limit a part of the work are held against the row itself.
    """
    own = Method.of_row(solver, row, prior, side)
    settled = settle(solver, row, prior, side, steps=T, tuned_steps=row.steps)
    sizes = {name: scale * getattr(settled.solver, name) for name in settled.solver.STEP_SIZES}
    long = replace(own, solver=with_options(settled.solver, sizes), steps=T)
    chains = {REFERENCE: long}
    for speed in (speed for speed in SPEEDS if speed in long.solver.PRESETS):
        chains[f"--speed {speed}"] = at_speed(solver, long, prior, speed)
    for steps in (60, 30) if "fast" in long.solver.PRESETS else ():
        chains[f"--speed fast --steps {steps}"] = at_speed(solver, long, prior, "fast", steps)
    parts = {f"--set {name}={value}": _with(own, name, value) for name, value in option_values(own.solver)}
    for low, high in ((0.0, 0.5), (0.1, 1.0), (0.1, 0.5)):
        parts[f"--set pag_interval=[{low:g}, {high:g}]"] = replace(own, pag_interval=(low, high))
    for name in perturbations:
        parts[f"--perturbation {name}"] = replace(own, perturbation=spelling(make_perturbation(name)))
    return [
        *(Variant(name, method, REFERENCE) for name, method in chains.items()),
        Variant(OWN, own, OWN),
        *(Variant(name, method, OWN) for name, method in parts.items() if method.describe() != own.describe()),
    ]


def at_speed(solver: str, long: Method, prior: Prior, speed: str, steps: int | None = None) -> Method:
    """The preset of a chain of 1000 steps, at its own number of steps or another."""
    row = Hyperparameters(s=long.s, layers=long.layers, steps=long.steps, options=long.solver.options())
    settled = settle(solver, row, prior, speed=speed, steps=steps)
    return replace(long, solver=settled.solver, steps=settled.steps)


def option_values(solver: Solver) -> Iterator[tuple[str, Any]]:
    """The options of a solver that leave out or limit a part of its work, each with the values that are tried."""
    fields = getattr(type(solver), "__pydantic_fields__", {})
    if "step_limit" in fields:
        yield from (("step_limit", value) for value in get_args(fields["step_limit"].annotation))
    if "encode_interval" in fields:
        yield from (("encode_interval", value) for value in (1, 2, 4))


def _with(method: Method, name: str, value: Any) -> Method:
    return replace(method, solver=with_options(method.solver, {name: value}))


def measure(
    store: RunStore, variant: Variant, keys: Mapping[str, str], trial: Trial, prior: Prior, batch_size: int
) -> None:
    """One sample of every picture that has no entry of this variant, batch by batch."""
    pending = store.survey(keys.values()).pending
    left = [b for b, name in enumerate(trial.names) if keys[name] in pending]
    for first in range(0, len(left), batch_size):
        part = trial.select(left[first : first + batch_size])
        method = variant.method
        passes = Passes()
        model = counted_model(prior, method.guidance(), passes)
        with tqdm(total=method.steps, unit="step", leave=False, desc=variant.name, disable=None) as bar:
            found = trials.restore_samples(part, model, method.solver, method.steps, 1, tick=bar.update)
        scores = trials.scores(part, found.samples[0].float())
        for b, name in enumerate(part.names):
            entry = {
                "picture": name,
                "variant": variant.name,
                "method": method.describe(),
                **{score: values[b] for score, values in scores.items()},
                "residual": float(found.residuals[0, b]),
                "seconds": found.seconds,
                "cpu_seconds": found.cpu_seconds,
                "passes": passes.total,
                **({"error": f"{variant.name}, {name}: {found.failed[b]}"} if b in found.failed else {}),
            }
            store.finish(keys[name], entry)


def table(variants: Sequence[Variant], found: Mapping[str, Mapping[str, Entry]]) -> str:
    """A line for each variant that was measured, in Markdown."""
    lines = [_line(v, found[v.name], found[v.against]) for v in variants if found[v.name]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *lines))


def _line(variant: Variant, mine: Mapping[str, Entry], other: Mapping[str, Entry]) -> list[str]:
    """What a variant saves, and what it costs: paired differences with their 95 % interval."""
    common = sorted(set(mine) & set(other))
    psnr, ssim = (estimate([entry[name] for entry in mine.values()]).mean for name in SCORES)
    passes = next(iter(mine.values()))["passes"]
    start, means = [variant.name, variant.against, str(len(common)), str(passes)], [f"{psnr:.2f}", f"{ssim:.3f}"]
    if not common or variant.name == variant.against:
        return [*start, "", *means, "", ""]
    before, after = (sum(side[picture]["cpu_seconds"] for picture in common) for side in (other, mine))
    pairs = [paired_difference([mine[i][n] for i in common], [other[i][n] for i in common]) for n in SCORES]
    changes = [_change(difference, digits) for difference, digits in zip(pairs, (2, 3), strict=True)]
    return [*start, f"{before / after:.2f}", *means, *changes]


def _change(difference: Estimate, digits: int) -> str:
    """A difference with its interval, which one picture does not have."""
    text = f"{difference.mean:+.{digits}f}"
    return text if math.isnan(difference.half) else f"{text} ± {difference.half:.{digits}f}"
