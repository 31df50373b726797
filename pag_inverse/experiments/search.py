"""Grid search: every combination of a solver's options and PAG on training pictures, best mean first."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from tqdm import tqdm

from pag_inverse.experiments import trials
from pag_inverse.experiments.entries import TrialEntry
from pag_inverse.experiments.methods import Method, digest, training_pictures
from pag_inverse.experiments.trials import Restorations, Trial
from pag_inverse.priors import Prior, load_prior
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.settings import (
    Count,
    Hyperparameters,
    Names,
    NonNegative,
    check_choice,
    check_different,
    load_task,
    settings,
)
from pag_inverse.settings.reader import parse_value
from pag_inverse.settings.request import Device
from pag_inverse.solvers import option_names, solver_class
from pag_inverse.storage.files import file_sha256
from pag_inverse.storage.places import check_apart
from pag_inverse.storage.run_store import RunStore


@settings
class SearchRequest:
    """What is searched, and on what.

    `grid` holds the values of each option of the solver; a text `F*NAME` is F times another option. `scales` are of
    PAG, each above 0 at each of the sets of `layers`. Step sizes are meant for pictures of 256 pixels: `size` is the
    side that is cut out of them.
    """

    task: str
    solver: str
    data: Path
    output: Path
    grid: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)
    scales: tuple[NonNegative, ...] = (0.0,)
    layers: tuple[Names, ...] = ()
    steps: tuple[Count, ...] = (100,)
    prior: str | None = None
    pictures: Count = 4
    samples: Count = 2
    size: Count = 128
    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Device = "cpu"


def search(request: SearchRequest) -> int:
    """Try every setting that was not tried yet, then print the table; 1 where one left the finite numbers."""
    rows = grid_rows(request)
    check_apart(request.output, [request.data])
    task = load_task(request.task, None, request.solver, image_size=trials.SIDE, pag=False)
    files = training_pictures(request.data, request.pictures, request.output)
    prior = load_prior(
        request.prior or solver_class(request.solver).default_prior, device=request.device, precision=request.precision
    )
    inputs = {name: file_sha256(file) for name, file in files.items()}
    names = ("task", "solver", "samples", "size", "seed", "precision")
    settings = {name: getattr(request, name) for name in names} | trials.described(task)
    settings |= {"prior_sha256": prior.fingerprint, "inputs": inputs}
    store = RunStore(request.output, kind="search", settings=settings, item="trial", entry=TrialEntry, told=("task",))
    store.check()
    truths = trials.read_truths(list(files.values()), request.size).to(prior.device)
    trial = trials.make_trial(task, list(files), truths, request.seed)
    methods = [Method.of_row(request.solver, row, prior, request.size) for row in rows]
    for method in methods:
        method.check(prior, trial.problem)
    if request.device == "cpu":
        settle_freed_memory(request.size**2)
    with store.open():
        print(f"{len(rows)} settings on {', '.join(trial.names)}", file=sys.stderr)
        try_rows(store, request, zip(rows, methods, strict=True), trial, prior)
    y = trial.problem.y
    enlarged = trials.mean(trials.scores(trial, trial.problem.operator.enlarge(y).clamp(-1, 1))["psnr"])
    entries = [entry for entry in store.entries().values() if "error" not in entry]
    print(table(entries, enlarged))
    failures = store.failures()
    print("".join(f"failed: {error}\n" for error in failures.values()), end="")
    return 1 if failures else 0


def try_rows(
    store: RunStore,
    request: SearchRequest,
    rows: Iterable[tuple[Hyperparameters, Method]],
    trial: Trial,
    prior: Prior,
) -> None:
    """Restore the same measurements with each row that has no entry."""
    for row, method in rows:
        key = digest(method.describe())
        if not store.survey([key]).pending:
            continue
        with tqdm(total=method.steps * request.samples, unit="step", leave=False, disable=None) as bar:
            found = trials.restore_samples(
                trial, method.model(prior), method.solver, method.steps, request.samples, tick=bar.update
            )
        described = {"options": dict(row.options), "s": row.s, "layers": list(row.layers), "steps": row.steps}
        if found.failed:
            b, why = next(iter(found.failed.items()))
            described["error"] = f"{setting(described)}: {trial.names[b]} {why}"
        store.finish(key, {**described, **measure(trial, found)})


def read_grid(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Texts KEY=V1,V2,... as values by key, read as YAML reads them; ValueError for another text, or a key twice."""
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        if not (key and values) or key in found:
            raise ValueError(f"--grid {text!r}; it must read KEY=VALUE,VALUE,... and each key be given once")
        found[key] = tuple(map(parse_value, values.split(",")))
    return found


def grid_rows(request: SearchRequest) -> list[Hyperparameters]:
    """Every setting once; layers do not multiply those without PAG. ValueError: what does not go together."""
    if any(request.scales) and not request.layers:
        raise ValueError("--layers is needed with --pag above 0")
    if request.layers and not any(request.scales):
        raise ValueError("--layers does nothing without a --pag above 0")
    lists = {"--steps": request.steps, "--pag": request.scales, "--layers": request.layers, **request.grid}
    for name, values in lists.items():
        check_different(name, values)
    names = option_names(request.solver)
    for name in request.grid:
        check_choice(f"an option of {request.solver}", name, names)
    rows = []
    for steps, values, s in itertools.product(request.steps, itertools.product(*request.grid.values()), request.scales):
        options = resolved(dict(zip(request.grid, values, strict=True)))
        for layers in request.layers if s > 0 else [()]:
            row = Hyperparameters(s=s, layers=layers, steps=steps, tuned_side=trials.SIDE, options=options)
            solver_class(request.solver)(**options)  # raises where a value is not allowed
            rows.append(row)
    return rows


def resolved(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with every `F*NAME` as F times the option NAME."""
    found = {}
    for name, value in options.items():
        factor, star, other = str(value).partition("*")
        if isinstance(value, str) and star:
            if not isinstance(options.get(other), (int, float)):
                raise ValueError(f"{name} is {value!r}; {other} must be another option of the grid with numbers")
            try:
                value = float(factor) * options[other]
            except ValueError as error:
                raise ValueError(f"{name} is {value!r}; it must be a value, or NUMBER*OPTION") from error
        found[name] = value
    return found


def measure(trial: Trial, found: Restorations) -> dict[str, float]:
    """What is compared: single samples and the mean of all, averaged over the pictures."""
    singles = [trials.scores(trial, x) for x in found.samples]
    together = trials.scores(trial, found.samples.mean(dim=0))
    one = {name: trials.mean([v for s in singles for v in s[name]]) for name in ("psnr", "ssim", "sharpness")}
    return {
        "mean_psnr": trials.mean(together["psnr"]),
        "mean_ssim": trials.mean(together["ssim"]),
        **one,
        "residual": float(found.residuals.mean()),
        "seconds": round(found.seconds, 2),
    }


def table(entries: Sequence[Mapping[str, Any]], measurement: float) -> str:
    """Every setting that was tried, best mean first, beside what was measured."""
    lines = ["mean dB  one dB  sharpness  residual   s/im  setting"]
    for e in sorted(entries, key=lambda e: -e["mean_psnr"]):
        residual = "nan" if e["residual"] is None else f"{e['residual']:.2f}"
        lines.append(
            f"{e['mean_psnr']:7.2f} {e['psnr']:7.2f} {e['sharpness']:10.2f} {residual:>9s} {e['seconds']:6.1f}  "
            f"{setting(e)}"
        )
    return "\n".join([*lines, f"measurement, enlarged: {measurement:.2f} dB"])


def setting(e: Mapping[str, Any]) -> str:
    """A setting in words."""
    options = " ".join(f"{name}={_text(value)}" for name, value in e["options"].items())
    guidance = f" s={e['s']:g} {','.join(e['layers'])}" if e["s"] > 0 else ""
    return f"{e['steps']} steps {options}{guidance}"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
