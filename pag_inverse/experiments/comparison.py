"""Comparison: the embedded priors against classical restoration and against what bounds them, picture by picture."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from operators.validation import LARGEST_SIGMA
from pag_inverse.data.images import list_images
from pag_inverse.experiments import bounds, classical_methods, trials
from pag_inverse.experiments.jobs import KIND, Job, JobStore, Made
from pag_inverse.experiments.methods import Method, load_priors, training_pictures
from pag_inverse.experiments.trials import Trial
from pag_inverse.metrics.perceptual import Lpips, Unavailable
from pag_inverse.priors import LatentPrior, Prior, load_prior
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.runtime.devices import check_device
from pag_inverse.settings import (
    TASKS,
    Count,
    Hyperparameters,
    Names,
    NonNegative,
    check_choice,
    check_different,
    check_number,
    load_task,
    settings,
)
from pag_inverse.settings.request import Device
from pag_inverse.solvers import SOLVERS, solver_class
from pag_inverse.storage.files import file_sha256
from pag_inverse.storage.finding import find_runs
from pag_inverse.storage.places import check_apart

LEAST_SIGMA = 1e-3  # of the denoising
DENOISER = "pixel"  # the embedded prior whose single step is held against denoising


@settings
class ComparisonRequest:
    """What is compared, and on what.

    `data` are pictures and folders of them, `training` is the folder on which classical methods are tuned. Methods of
    `many` get `samples` restorations of each picture, others one. `sigmas`, on [-1, 1], are of the denoising.
    """

    data: tuple[Path, ...]
    training: Path
    output: Path
    tasks: Names = TASKS
    solvers: Names = tuple(SOLVERS)
    samples: Count = 16
    many: Names = ()
    sigmas: tuple[NonNegative, ...] = (0.1, 0.2, 0.5, 1.0, 2.0)
    tuning_pictures: Count = 6
    size: Count = 256
    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Device = "cpu"
    lpips_net: Literal["vgg", "alex"] = "vgg"
    lpips_weights: Path | None = None
    page_only: bool = False


def compare(request: ComparisonRequest) -> int:
    """Restore what is missing, cheapest first, then write the page; 1 where a restoration failed."""
    check(request)
    check_apart(request.output, [*request.data, request.training])
    if request.training.resolve() in [path.resolve() for path in request.data]:
        raise ValueError(f"--training {request.training} is --data, too: classical methods would be tuned on the test")
    if request.page_only:
        find_runs(request.output, KIND)
    files = pictures(request.data)
    lpips, about_lpips = lpips_of(request)
    store = JobStore(request.output, {name: getattr(request, name) for name in ("size", "seed", "precision")})
    store.run.check(names=store.names([file.stem for file in files]))
    comparison = Comparison(request, store, files)
    if request.device == "cpu":
        settle_freed_memory(request.size**2)
    with store.run.open():
        jobs = []
        for stage in comparison.stages():
            if not request.page_only:
                store.make(stage)
            jobs += stage
        print(f"written to {store.write_page(jobs, comparison.tuned, lpips, about_lpips)}")
    failures = store.failures(jobs)
    print("".join(f"failed: {line}\n" for line in failures), end="", file=sys.stderr)
    return 1 if failures else 0


def check(request: ComparisonRequest) -> None:
    """ValueError for an unknown solver, task or method, a sigma of 0, and a device that is not there."""
    check_device(request.device)
    for solver in request.solvers:
        solver_class(solver)
    for task in request.tasks:
        check_choice("task", task, TASKS)
    check_different("--sigmas", [bounds.sigma_text(sigma) for sigma in request.sigmas])
    for name in ("tasks", "solvers", "many"):
        check_different(f"--{name}", getattr(request, name))
    for sigma in request.sigmas:
        check_number("--sigmas", sigma, minimum=LEAST_SIGMA, maximum=LARGEST_SIGMA)
    for method in request.many:
        check_choice("--many", method, methods_of(request.solvers))


def methods_of(solvers: Sequence[str]) -> list[str]:
    """The names of the solvers with PAG and without."""
    return [f"{solver}{suffix}" for solver in solvers for suffix in ("_pag", "")]


def pictures(paths: Sequence[Path]) -> list[Path]:
    """The pictures that are named, and those in folders; ValueError where two have one name."""
    files = [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
    names = [file.stem for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two pictures are named {twice[0]}")
    return files


def lpips_of(request: ComparisonRequest) -> tuple[Lpips | None, str]:
    """The distance, and a sentence about it; or why there is none."""
    try:
        lpips = Lpips(request.lpips_net, request.lpips_weights, request.device)
    except Unavailable as error:
        if request.lpips_weights:
            raise ValueError(str(error)) from error
        return None, f"LPIPS was not measured: {error}."
    return lpips, f"LPIPS: {request.lpips_net}, version 0.1."


def row_of(task: str, method: str) -> Hyperparameters:
    """The row of the embedded priors for a method's name."""
    solver, _, suffix = method.partition("_")
    row = load_task(task, "natural", solver, image_size=trials.SIDE, pag=suffix == "pag").hyperparameters
    assert row is not None
    return row


class Comparison:
    """What one comparison is made of, and its jobs in stages: classical, bounds, denoising, then the solvers."""

    def __init__(self, request: ComparisonRequest, store: JobStore, files: Sequence[Path]) -> None:
        self.request, self.store = request, store
        self.tuned: dict[str, Any] = {}
        self.names = [file.stem for file in files]
        self.contents = {file.stem: file_sha256(file) for file in files}
        self.truths = trials.read_truths(files, request.size).to(request.device)
        self.trials = {task: self._trial(task, self.names, self.truths) for task in request.tasks}
        self.priors = load_priors(request.solvers, request.device, request.precision)
        self.methods = {
            (name, task): self._method(name, task) for name in methods_of(request.solvers) for task in self.trials
        }
        for (name, task), method in self.methods.items():
            method.check(self._prior(name), self.trials[task].problem)
        self.training = training_pictures(request.training, request.tuning_pictures, request.output)
        self.tuning_truths = trials.read_truths(list(self.training.values()), request.size).to(request.device)

    def stages(self) -> Iterator[list[Job]]:
        """The jobs, cheapest first; each stage is made before the next is asked for."""
        for task, trial in self.trials.items():
            yield self.classical(task, trial)
            yield self.round_trips(task, trial)
        yield self.denoising()
        yield self.solving()

    def classical(self, task: str, trial: Trial) -> list[Job]:
        """Every classical method of a task, tuned on training pictures once."""
        jobs = []
        for method in classical_methods.methods_of(task):
            try:
                strength = self._strength(task, method)
            except KeyError:  # only the page is written, and it was never tuned
                continue
            self.tuned[f"{task}.{method}"] = strength
            jobs += [
                self._job(task, method, b, {"strength": strength}, partial(_classically, method, single, strength))
                for b, single in enumerate(trial.singles())
            ]
        return jobs

    def round_trips(self, task: str, trial: Trial) -> list[Job]:
        """The autoencoder's round trip of each truth, and the residual that its error alone implies."""
        return [
            self._job(task, "autoencoder", b, {"prior": prior.fingerprint}, partial(_round_trip, prior, single))
            for prior in {id(prior): prior for prior in self.priors.values()}.values()
            if isinstance(prior, LatentPrior)
            for b, single in enumerate(trial.singles())
        ]

    def denoising(self) -> list[Job]:
        """One step of the pixel prior beside total variation at its best, at every sigma."""
        if not self.request.sigmas:
            return []
        prior = load_prior(DENOISER, device=self.request.device, precision=self.request.precision)
        jobs = []
        for sigma, (b, name) in itertools.product(self.request.sigmas, enumerate(self.names)):
            truth = self.truths[b : b + 1]
            y = bounds.noisy(truth, sigma, self.request.seed, name)
            methods: dict[str, tuple[Any, Callable[[], Tensor]]] = {
                "measurement": ({}, partial(y.clamp, -1, 1)),
                "total_variation": ({}, partial(bounds.oracle_total_variation, y, truth, sigma)),
                "one_step": ({"prior": prior.fingerprint}, partial(bounds.one_step, prior, y, sigma)),
            }
            for method, (made_of, restore) in methods.items():
                made = partial(_denoised, restore, y, sigma)
                jobs.append(self._job(f"denoising_{bounds.sigma_text(sigma)}", method, b, made_of, made))
        return jobs

    def solving(self) -> list[Job]:
        """One sample of every picture first, then the further ones: a page is of use early."""
        names = methods_of(self.request.solvers)
        many = self.request.many or names[:1]
        singles = {task: trial.singles() for task, trial in self.trials.items()}
        jobs = []
        for sample, ((name, task), method) in itertools.product(range(self.request.samples), self.methods.items()):
            if sample == 0 or name in many:
                prior = self._prior(name)
                made_of = {"prior": prior.fingerprint, "method": method.describe()}
                for b, single in enumerate(singles[task]):
                    make = partial(_solved, single, prior, method, sample)
                    jobs.append(self._job(task, name, b, made_of, make, sample, method.steps))
        return jobs

    def _prior(self, name: str) -> Prior:
        return self.priors[name.partition("_")[0]]

    def _method(self, name: str, task: str) -> Method:
        return Method.of_row(name.partition("_")[0], row_of(task, name), self._prior(name), self.request.size)

    def _job(
        self,
        task: str,
        method: str,
        b: int,
        made_of: dict[str, Any],
        make: Callable[[], Made],
        sample: int = 0,
        steps: int = 0,
    ) -> Job:
        name = self.names[b]
        content = {**made_of, "input_sha256": self.contents[name]}
        return Job(task, method, name, sample, content, self.truths[b], make, steps)

    def _trial(self, task: str, names: Sequence[str], truths: Tensor) -> Trial:
        config = load_task(task, None, self.request.solvers[0], image_size=trials.SIDE, pag=False)
        return trials.make_trial(config, names, truths, self.request.seed)

    def _strength(self, task: str, method: str) -> Any:
        def tune() -> Any:
            return classical_methods.tune(method, self._trial(task, list(self.training), self.tuning_truths))

        inputs = {name: file_sha256(file) for name, file in self.training.items()}
        allowed = classical_methods.METHODS[method][1]
        return self.store.strength(f"{task}.{method}", inputs, allowed, None if self.request.page_only else tune)


def _classically(method: str, trial: Trial, strength: Any) -> Made:
    image = classical_methods.apply(method, trial, strength)
    return Made(image[0], float(trial.problem.relative_residual(image)))


def _round_trip(prior: Prior, trial: Trial) -> Made:
    image = bounds.round_trip(prior, trial.truths)
    return Made(image[0], float(trial.problem.relative_residual(image)))


def _denoised(restore: Callable[[], Tensor], y: Tensor, sigma: float) -> Made:
    image = restore()
    return Made(image[0], float((y - image).square().mean().sqrt() / sigma))


def _solved(trial: Trial, prior: Prior, method: Method, sample: int) -> Made:
    found = trials.restore_samples(trial, method.model(prior), method.solver, method.steps, 1, first=sample)
    return Made(found.samples[0, 0], float(found.residuals), found.seconds, found.failed.get(0))
