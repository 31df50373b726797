"""From a request to the objects of a run: prior, guidance, solver, operator, problem; and their description."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from operators import GaussianNoise, Noise, Operator, PoissonNoise, make_noise, make_operator
from operators.validation import check_shape
from pag_inverse.guidance import Guidance, GuidedModel, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import LatentPrior, Prior, load_prior
from pag_inverse.priors.checkpoints.picture_side import picture_side
from pag_inverse.priors.load import prompt_of
from pag_inverse.problem import InverseProblem, simulate, task_noise
from pag_inverse.restoration.canvas import Canvas
from pag_inverse.restoration.kinds import as_measured
from pag_inverse.restoration.measured import check_truth, measurement_operator, read_shared
from pag_inverse.restoration.noise_level import FEWEST, sigma_of
from pag_inverse.restoration.request import SolveRequest, estimates_sigma, load_request, prior_name, resolve_solver
from pag_inverse.restoration.subjects import OwnArrays, Subject
from pag_inverse.restoration.tiling import model_for
from pag_inverse.runtime.batching import check_memory
from pag_inverse.runtime.streams import batch_draw, operator_rng, stream_seed
from pag_inverse.settings import Hyperparameters, TaskConfig, load_task
from pag_inverse.solvers import option_names, solver_class
from pag_inverse.solvers.step_sizes import Settled, settle


@dataclass(frozen=True)
class Recipe:
    """The objects of a run; nothing about it is left to check but the pictures."""

    request: SolveRequest
    task: TaskConfig
    row: Hyperparameters
    prior: Prior
    guidance: Guidance
    noise: Noise
    size: int
    settled: Settled
    own: OwnArrays = field(default_factory=OwnArrays)
    estimates_sigma: bool = False

    def model(self, problem: InverseProblem) -> GuidedModel:
        """The prior under its guidance, for the pictures of a problem."""
        request, shape = self.request, problem.operator.in_shape
        return model_for(self.prior, self.guidance, shape, request.tile, request.overlap)

    def operator(self, subjects: Sequence[Subject]) -> Operator:
        """The operator of a batch: each image's own box or kernel, or the user's mask or kernel."""
        return self._operator(subjects).to(self.request.device, torch.float32)

    def _operator(self, subjects: Sequence[Subject]) -> Operator:
        if self.request.measurement is not None:
            return measurement_operator(subjects[0].own, self.task, subjects[0].image.shape)
        rngs = [operator_rng(self.request.seed, subject.name) for subject in subjects]
        operator = self.task.operator
        return make_operator(operator.name, check_shape(subjects[0].image.shape), operator.settings, rngs)

    def problem(self, subjects: Sequence[Subject]) -> InverseProblem:
        """A degraded batch with each image's own noise; or the user's measurement, multiplied by its mask."""
        images = torch.stack([torch.from_numpy(subject.image) for subject in subjects]).to(self.request.device)
        operator = self.operator(subjects)
        if self.request.measurement is not None:
            y = as_measured(images, operator)
            return InverseProblem(y * operator.observation_mask(y), operator, self.noise_of(subjects[0]))
        seeds = [stream_seed(self.request.seed, subject.name, "measurement") for subject in subjects]
        draw = batch_draw(seeds, self.request.device)
        return simulate(images, operator, self.noise, draw=draw, noise_in_hole=self.task.noise_in_hole)

    def noise_of(self, subject: Subject) -> Noise:
        """The noise of the run, or of a measurement whose sigma was estimated."""
        return self.noise if subject.sigma is None else GaussianNoise(subject.sigma)

    def checked(self, subject: Subject) -> Subject:
        """A measurement with its estimate of sigma where none is given; ValueError where something does not fit."""
        operator = self._operator([subject])
        check_truth(subject, operator)
        if not self.estimates_sigma:
            return subject
        problem = self.problem([subject])
        sigma = sigma_of(problem.y, problem.operator)
        if sigma is None:
            raise ValueError(f"{subject.source}: sigma is estimated from at least {FEWEST} pixels; give --sigma")
        return replace(subject, sigma=sigma)

    def for_example(self, subject: Subject) -> Recipe:
        """The recipe with its step sizes brought to a picture; ValueError where prior or solver cannot take it."""
        check_memory(*subject.image.shape[1:])
        check_memory(*self._operator([subject]).in_shape[1:])
        problem = self.problem([subject])
        canvas = Canvas.of(problem, self.prior)
        _, height, width = problem.operator.in_shape
        settled = _settle(self.request, self.task, self.row, self.prior, math.sqrt(height * width))
        settled.solver.check(canvas.problem, self.prior)
        self.model(problem)
        return replace(self, settled=settled)

    def describe(self) -> dict[str, Any]:
        """What decides the results, inputs aside; two runs with equal descriptions and inputs are the same run."""
        request = self.request
        return {
            "task": self.task.name,
            "solver": request.solver,
            "prior": prior_name(request),
            "dataset": self.task.dataset,
            "s": self.row.s,
            "layers": list(self.row.layers),
            "pag_interval": list(self.row.pag_interval),
            **self.row.further_guidance(),
            "steps": self.settled.steps,
            **self.settled.solver.options(),
            "speed": request.speed,
            "cfg": request.cfg,
            "prompt": request.prompt,
            "operator": self.task.operator.name,
            "operator_settings": self._operator_settings(),
            "noise": self._noise_name(),
            "sigma": self.noise.sigma if self.request.noise_is_known else None,
            "sigma_range": [-1, 1],
            **({"peak": self.noise.peak} if isinstance(self.noise, PoissonNoise) else {}),
            "noise_in_hole": self.task.noise_in_hole,
            "size": (None if request.whole else self.size) if request.measurement is None else None,
            "resize": request.resize,
            "tile": request.tile,
            "overlap": request.overlap,
            "composite": request.composite,
            **({"composite_edge": request.composite_edge} if request.composite_edge else {}),
            "seed": request.seed,
            "samples": request.samples,
            "measured": request.measurement is not None,
            **self.own.hashes(),
            "device": request.device.partition(":")[0],
            "prediction": self.prior.prediction,
            "precision": request.precision,
            **({} if request.tf32 is None else {"tf32": request.tf32}),
            **({"explain": list(request.explain)} if request.explain else {}),
            "prior_sha256": self.prior.fingerprint,
        }

    def _operator_settings(self) -> dict[str, Any]:
        """Those of the task; a mask or kernel of the user's own stands in place of what is drawn."""
        settings = dict(self.task.operator.settings)
        if self.request.mask is None and self.request.kernel is None:
            return settings
        return {"project": settings.get("project", "published")}

    def _noise_name(self) -> str:
        if self.request.measurement is None:
            return self.task.noise
        if self.request.peak is not None:
            return "poisson"
        if self.estimates_sigma:
            return "gaussian of estimated sigma"
        if self.task.noise == "none":
            return "none"
        return "gaussian" if self.sigma_is_known else "unknown"

    @property
    def sigma_is_known(self) -> bool:
        """False for a user's measurement without --sigma or peak, unless it is estimated."""
        return self.request.noise_is_known or self.estimates_sigma


def make_recipe(request: SolveRequest, prior: Prior | None = None) -> Recipe:
    """Make the objects that a request names; its prior is loaded unless it is given. ValueError: what does not fit."""
    request = resolve_solver(request)
    task, row = load_request(request)
    own, noise = read_shared(request), _noise(request, task)
    if prior is None:
        prior = request_prior(request)
    _check_side(request, task, prior)
    condition = _condition(request, prior)
    guidance: Guidance = NoGuidance(condition)
    if row.s > 0 or request.cfg != 1:
        row = replace(row, layers=_layers(request, row, prior))
        guidance = PerturbedAttentionGuidance.of_row(row, cfg=request.cfg, condition=condition)
    settled, size = _settle(request, task, row, prior, None), request.size or prior.image_size
    if request.measurement is None and not request.whole:
        check_memory(size, size)
    return Recipe(request, task, row, prior, guidance, noise, size, settled, own, estimates_sigma(request))


def _layers(request: SolveRequest, row: Hyperparameters, prior: Prior) -> tuple[str, ...]:
    """The layers to perturb, by diffusers' names; ValueError where the prior does not have them."""
    try:
        return prior.resolve_layers(row.layers)
    except ValueError:
        if request.layers is not None:
            raise
        raise ValueError(
            f"prior {prior.name} has no layer {', '.join(row.layers)} of {request.solver}'s row, which is for prior "
            f"{solver_class(request.solver).default_prior}: give that one, or --layers (--list-layers prints them)"
        ) from None


def request_prior(request: SolveRequest) -> Prior:
    """Load the prior that a request names onto its device; ValueError where either is not to be had."""
    if request.tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = request.tf32
    return load_prior(
        prior_name(request),
        weights_dir=request.weights_dir,
        download=request.download,
        config=request.prior_config,
        prediction=request.prediction,
        device=request.device,
        precision=request.precision,
        compile=request.compile,
        channels_last=request.channels_last,
        low_memory=request.low_memory,
    )


def _settle(request: SolveRequest, task: TaskConfig, row: Hyperparameters, prior: Prior, side: float | None) -> Settled:
    given = dict(request.options)
    known = request.noise_is_known or estimates_sigma(request)
    if not known and "renoise_prediction" in option_names(request.solver):
        given.setdefault("renoise_prediction", False)  # the noise of the measurement is not known
    return settle(
        request.solver,
        row,
        prior,
        side,
        speed=request.speed,
        given=given,
        steps=request.steps,
        tuned_steps=request.tuned_steps,
        where=task.source if task.hyperparameters is not None and not request.options else "",
    )


def _noise(request: SolveRequest, task: TaskConfig) -> Noise:
    """The task's noise, at the request's level; of a user's measurement without a level, none."""
    if request.measurement is None:
        return task_noise(task, request.sigma, request.peak)
    if request.peak is not None:
        return make_noise("poisson", peak=request.peak)
    return make_noise("gaussian", request.sigma) if request.sigma else make_noise("none")


def _condition(request: SolveRequest, prior: Prior) -> torch.Tensor | None:
    if request.prompt is None:
        return None
    if not (isinstance(prior, LatentPrior) and prior.empty is not None):
        raise ValueError(f"prior {prior.name} takes no prompt")
    return prompt_of(prior, request.prompt)


def _check_side(request: SolveRequest, task: TaskConfig, prior: Prior) -> None:
    """ValueError where the operator was chosen for another size of pictures than the prior's turns out to be."""
    if request.size is not None or prior.image_size == picture_side(prior_name(request)):
        return
    there = load_task(request.task, task.dataset, request.solver, image_size=prior.image_size, pag=task.pag)
    here = {**task.operator.settings, "project": None, "position": None}
    if here != {**there.operator.settings, "project": None, "position": None}:
        raise ValueError(f"prior {prior.name} works at {prior.image_size} pixels: give --size {prior.image_size}")
