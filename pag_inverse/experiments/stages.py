"""The jobs of a comparison: classical methods, bounds, denoising, and every solver with PAG and without."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pag_inverse.experiments import bounds, classical_methods, trials
from pag_inverse.experiments.counting import Passes, counted_model
from pag_inverse.experiments.jobs import Job, JobStore, Made
from pag_inverse.experiments.methods import Method
from pag_inverse.experiments.trials import Trial
from pag_inverse.guidance import make_perturbation, spelling
from pag_inverse.priors import LatentPrior, Prior
from pag_inverse.settings import AUTO, Hyperparameters, has_row, load_task
from pag_inverse.storage.files import file_sha256

ROWS = "natural"  # of the embedded priors
TRIED_STEPS, TRIED_SIDE = 2, 64  # of a chain that is run to count its passes


@dataclass(frozen=True)
class Candidate:
    """A solver with PAG or without; methods with PAG end in `_pag`."""

    solver: str
    pag: bool
    perturbation: str | None = None  # None is the row's

    @property
    def name(self) -> str:
        """What it is called in the store and on the page."""
        return f"{self.solver}_pag" if self.pag else self.solver


def candidates_of(solvers: Sequence[str], perturbation: str | None = None) -> list[Candidate]:
    """The solvers with PAG, under a perturbation or the row's, and without."""
    return [Candidate(solver, pag, perturbation if pag else None) for solver in solvers for pag in (True, False)]


def row_of(task: str, candidate: Candidate) -> Hyperparameters | None:
    """The row of the embedded priors for a task and a candidate; None where there is none."""
    if not has_row(task, ROWS, candidate.solver, pag=candidate.pag):
        return None
    row = load_task(task, ROWS, candidate.solver, image_size=trials.SIDE, pag=candidate.pag).hyperparameters
    if row is None or candidate.perturbation is None:
        return row
    return replace(row, perturbation=spelling(make_perturbation(candidate.perturbation)))


@dataclass(frozen=True)
class Inputs:
    """What every job is made from: pictures by name with their hashes, truths (B, 3, n, n), and training pictures."""

    contents: dict[str, str | None]
    truths: Tensor
    training: dict[str, Path]
    tuning_truths: Tensor
    priors: dict[str, Prior]
    seed: int


class Stages:
    """The jobs by stage; each is known by all that decides its result.

    `candidates` have `samples` restorations of each picture where they are in `many`, else one. Those without a row of
    a task are left out, and `left_out` has their names by the tasks that lack them.
    """

    def __init__(
        self, inputs: Inputs, store: JobStore, tasks: Sequence[str], candidates: Sequence[Candidate], denoiser: Prior
    ) -> None:
        self.inputs, self.store, self.denoiser = inputs, store, denoiser
        self.names = list(inputs.contents)
        self.tuned: dict[str, Any] = {}
        self.trials = {task: self._trial(task, self.names, inputs.truths) for task in tasks}
        self.methods: dict[tuple[Candidate, str], Method] = {}
        self.left_out: dict[tuple[str, ...], list[str]] = {}
        for candidate in candidates:
            self._add(candidate)

    def _add(self, candidate: Candidate) -> None:
        """The candidate's method for each task that has a row of it."""
        missing, prior = [], self.inputs.priors[candidate.solver]
        for task, trial in self.trials.items():
            row = row_of(task, candidate)
            if row is None:
                missing.append(task)
                continue
            method = Method.of_row(candidate.solver, row, prior, trial.truths.shape[-1])
            method.check(prior, trial.problem)
            self.methods[candidate, task] = method
        if missing:
            self.left_out.setdefault(tuple(missing), []).append(candidate.name)

    @property
    def notes(self) -> list[str]:
        """A sentence for the page on what is left out."""
        return [
            f"Left out of {', '.join(tasks)}, which has no row {ROWS} of it: {', '.join(names)}."
            for tasks, names in self.left_out.items()
        ]

    # The stages

    def classical_methods(self) -> list[tuple[str, str]]:
        """Each classical method of each task: one process tunes it, and restores every picture with it."""
        return [(task, method) for task in self.trials for method in classical_methods.methods_of(task)]

    def classical(self, task: str, method: str, *, tune: bool) -> list[Job]:
        """A classical method of a task, tuned on training pictures once; none where it was never tuned."""
        try:
            strength = self._strength(task, method, tune)
        except KeyError:
            return []
        self.tuned[f"{task}.{method}"] = strength
        return [
            self._job(task, method, b, {"strength": strength}, partial(_classically, method, single, strength))
            for b, single in enumerate(self.trials[task].singles())
        ]

    def round_trips(self, task: str) -> list[Job]:
        """The autoencoder's round trip of each truth, and the residual that its error alone implies."""
        return [
            self._job(task, "autoencoder", b, {"prior": prior.fingerprint}, partial(_round_trip, prior, single))
            for prior in {id(prior): prior for prior in self.inputs.priors.values()}.values()
            if isinstance(prior, LatentPrior)
            for b, single in enumerate(self.trials[task].singles())
        ]

    def denoising(self, sigmas: Sequence[float]) -> list[Job]:
        """One step of the pixel prior beside total variation at its best, at every sigma."""
        jobs, prior = [], self.denoiser
        for sigma, (b, name) in itertools.product(sigmas, enumerate(self.names)):
            truth = self.inputs.truths[b : b + 1]
            y = bounds.noisy(truth, sigma, self.inputs.seed, name)
            methods: dict[str, tuple[Any, Callable[[], Tensor]]] = {
                "measurement": ({}, partial(y.clamp, -1, 1)),
                "total_variation": ({}, partial(bounds.oracle_total_variation, y, truth, sigma)),
                "one_step": ({"prior": prior.fingerprint}, partial(bounds.one_step, prior, y, sigma)),
            }
            for method, (made_of, restore) in methods.items():
                made = partial(_denoised, restore, y, sigma)
                jobs.append(self._job(f"denoising_{bounds.sigma_text(sigma)}", method, b, made_of, made))
        return jobs

    def solving(self, samples: int, many: Sequence[str]) -> list[Job]:
        """Every sample of every picture by every candidate, in their order."""
        jobs = []
        for (candidate, task), method in self.methods.items():
            prior = self.inputs.priors[candidate.solver]
            made_of = {"prior": prior.fingerprint, "method": method.describe()}
            singles = self.trials[task].singles()
            for sample, (b, single) in itertools.product(range(samples), enumerate(singles)):
                if sample == 0 or candidate.name in many:
                    make = partial(_solved, single, prior, method, sample)
                    jobs.append(self._job(task, candidate.name, b, made_of, make, sample, method.steps))
        return jobs

    def in_order(self, jobs: Sequence[Job]) -> list[Job]:
        """One sample of every picture by every method first, then the further ones; in each, few passes first.

        The passes of a whole chain are judged by a few steps on a small picture, so that every process finds the same.
        """
        costs: dict[str, float] = {}
        for candidate, task in self.methods:
            if candidate.name not in costs:
                costs[candidate.name] = self._passes_of_a_step(candidate, task)
        return sorted(jobs, key=lambda job: (job.sample, job.steps * costs[job.method]))

    def _passes_of_a_step(self, candidate: Candidate, task: str) -> float:
        method, prior = self.methods[candidate, task], self.inputs.priors[candidate.solver]
        side = min(TRIED_SIDE, self.inputs.truths.shape[-1])
        trial = self._trial(task, ["small"], torch.zeros_like(self.inputs.truths[:1, :, :side, :side]))
        passes = Passes()
        model, steps = counted_model(prior, method.guidance(), passes), min(TRIED_STEPS, method.steps)
        trials.restore_samples(trial, model, method.solver, steps, 1)
        return passes.total / steps

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
        content = {**made_of, "input_sha256": self.inputs.contents[name]}
        return Job(task, method, name, sample, content, self.inputs.truths[b], make, steps)

    def _trial(self, task: str, names: Sequence[str], truths: Tensor) -> Trial:
        config = load_task(task, None, AUTO, image_size=trials.SIDE, pag=False)
        return trials.make_trial(config, names, truths, self.inputs.seed)

    def _strength(self, task: str, method: str, tune: bool) -> Any:
        training = self.inputs.training

        def tuned() -> Any:
            return classical_methods.tune(method, self._trial(task, list(training), self.inputs.tuning_truths))

        made_of = {name: file_sha256(file) for name, file in training.items()}
        allowed = classical_methods.METHODS[method][1]
        return self.store.strength(f"{task}.{method}", made_of, allowed, tuned if tune else None)


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
    passes = Passes()
    model = counted_model(prior, method.guidance(), passes)
    found = trials.restore_samples(trial, model, method.solver, method.steps, 1, first=sample)
    return Made(found.samples[0, 0], float(found.residuals), passes.counts, found.failed.get(0))
