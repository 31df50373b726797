"""Comparison: solvers with the embedded priors, classical restoration, and what bounds them, picture by picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from operators.validation import LARGEST_SIGMA
from pag_inverse.data.images import list_images
from pag_inverse.experiments import bounds, trials
from pag_inverse.experiments.jobs import KIND, Job, JobStore
from pag_inverse.experiments.methods import load_priors, training_pictures
from pag_inverse.experiments.stages import Candidate, Inputs, Stages, candidates_of
from pag_inverse.guidance import make_perturbation
from pag_inverse.metrics.perceptual import Lpips, Unavailable
from pag_inverse.priors import load_prior
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.runtime.devices import check_device
from pag_inverse.runtime.processes import Processes
from pag_inverse.settings import (
    PAPER_TASKS,
    Count,
    Names,
    NonNegative,
    check_choice,
    check_different,
    check_number,
    settings,
)
from pag_inverse.settings.request import Device
from pag_inverse.solvers import SOLVERS, default_solver, solver_class
from pag_inverse.storage.files import file_sha256
from pag_inverse.storage.finding import find_runs
from pag_inverse.storage.places import check_apart

LEAST_SIGMA = 1e-3  # of the denoising
DENOISER = "pixel"  # the embedded prior whose single step is held against denoising


@settings
class ComparisonRequest:
    """What is compared, and on what.

    `data` are pictures and folders of them, `training` is the folder on which classical methods are tuned. Methods of
    `many`, by default all, get `samples` restorations of each picture, others one. `sigmas`, on [-1, 1], are of the
    denoising. Differences are taken from `reference`, a method such as `psld_pag`; by default the first pixel solver
    with PAG. `perturbation` is in place of that of the rows with PAG.
    """

    data: tuple[Path, ...]
    training: Path
    output: Path
    tasks: Names = PAPER_TASKS
    solvers: Names = tuple(SOLVERS)
    samples: Count = 4
    many: Names = ()
    reference: str | None = None
    perturbation: str | None = None
    sigmas: tuple[NonNegative, ...] = (0.1, 0.2, 0.5, 1.0, 2.0)
    tuning_pictures: Count = 6
    size: Count = 256
    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Device = "cpu"
    lpips_net: Literal["vgg", "alex"] = "vgg"
    lpips_weights: Path | None = None
    page_only: bool = False


def compare(request: ComparisonRequest, processes: Processes | None = None) -> int:
    """Restore what is missing, then write the page; 1 where a restoration failed.

    Several processes, as torchrun starts them, share the restorations; the first one writes the page.
    """
    processes = processes or Processes()
    processes.join()
    try:
        comparison = processes.agreed(lambda: Comparison(request, processes))
        with ExitStack() as opened:
            processes.agreed(lambda: opened.enter_context(comparison.store.run.open()))
            if not request.page_only:
                processes.agreed(comparison.make)
            return processes.agreed(comparison.report)
    finally:
        processes.leave()


def check(request: ComparisonRequest) -> None:
    """ValueError for an unknown name, a sigma of 0, a device that is not there, or a folder in two places."""
    check_apart(request.output, [*request.data, request.training])
    if request.training.resolve() in [path.resolve() for path in request.data]:
        raise ValueError(f"--training {request.training} is --data, too: classical methods would be tuned on the test")
    check_device(request.device)
    if request.perturbation is not None:
        make_perturbation(request.perturbation)
    for solver in request.solvers:
        solver_class(solver)
    for task in request.tasks:
        check_choice("task", task, PAPER_TASKS)
    check_different("--sigmas", [bounds.sigma_text(sigma) for sigma in request.sigmas])
    for name in ("tasks", "solvers", "many"):
        check_different(f"--{name}", getattr(request, name))
    for sigma in request.sigmas:
        check_number("--sigmas", sigma, minimum=LEAST_SIGMA, maximum=LARGEST_SIGMA)
    names = [candidate.name for candidate in candidates_of(request.solvers)]
    for method in request.many:
        check_choice("--many", method, names)
    if request.reference is not None:
        check_choice("--reference", request.reference, names)
    if request.page_only:
        find_runs(request.output, KIND)


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


class Comparison:
    """One comparison, checked and read, as one of several processes sees it."""

    def __init__(self, request: ComparisonRequest, processes: Processes) -> None:
        check(request)
        self.request, self.processes = request, processes
        files = pictures(request.data)
        self.lpips, self.about_lpips = lpips_of(request)
        described = {name: getattr(request, name) for name in ("size", "seed", "precision")}
        self.store = JobStore(request.output, described, processes.rank, processes.world)
        self.store.run.check(names=self.store.names([file.stem for file in files]))
        self.candidates = candidates_of(request.solvers, request.perturbation)
        self.many = request.many or tuple(candidate.name for candidate in self.candidates)
        denoiser = load_prior(DENOISER, device=request.device, precision=request.precision)
        self.stages = Stages(_inputs(request, files), self.store, request.tasks, self.candidates, denoiser)
        if request.device == "cpu":
            settle_freed_memory(request.size**2)

    def make(self) -> None:
        """This process's part: what is cheap first, then one sample of every method, then the further ones."""
        stages, deal = self.stages, self.processes.deal
        for task, method in deal(stages.classical_methods()):
            self.store.make(stages.classical(task, method, tune=True))
        for jobs in (self._bounds(), stages.in_order(self._solving())):
            self.store.make(deal(jobs))

    def report(self) -> int:
        """Write the pages of what all processes made; 1 where a restoration failed."""
        jobs = self.jobs()
        failures = self.store.failures(jobs)
        if self.processes.rank == 0:
            stages = self.stages
            print("".join(f"{note}\n" for note in stages.notes), end="", file=sys.stderr)
            reference = self.request.reference or Candidate(default_solver("pixel"), True).name
            page = self.store.write_page(jobs, stages.tuned, self.lpips, self.about_lpips, stages.notes, reference)
            print(f"written to {page}")
            print("".join(f"failed: {line}\n" for line in failures), end="", file=sys.stderr)
        return 1 if failures else 0

    def jobs(self) -> list[Job]:
        """Every job of all processes, in the order of the page."""
        found = [self.stages.classical(*names, tune=False) for names in self.stages.classical_methods()]
        return [*(job for jobs in found for job in jobs), *self._bounds(), *self._solving()]

    def _bounds(self) -> list[Job]:
        trips = [job for task in self.request.tasks for job in self.stages.round_trips(task)]
        return [*trips, *self.stages.denoising(self.request.sigmas)]

    def _solving(self) -> list[Job]:
        return self.stages.solving(self.request.samples, self.many)


def _inputs(request: ComparisonRequest, files: Sequence[Path]) -> Inputs:
    """Read the pictures and load the priors."""
    training = training_pictures(request.training, request.tuning_pictures, request.output)
    return Inputs(
        contents={file.stem: file_sha256(file) for file in files},
        truths=trials.read_truths(files, request.size).to(request.device),
        training=training,
        tuning_truths=trials.read_truths(list(training.values()), request.size).to(request.device),
        priors=load_priors(request.solvers, request.device, request.precision),
        seed=request.seed,
    )
