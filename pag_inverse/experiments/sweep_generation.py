"""The samples of a sweep: pictures of a prior, without a measurement, under each setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pag_inverse.data.images import to_uint8
from pag_inverse.experiments import trials
from pag_inverse.experiments.methods import digest, training_pictures
from pag_inverse.experiments.sweep_grid import Setting
from pag_inverse.experiments.sweep_subjects import Made, Subject, SweepRequest, described_run, settings_of
from pag_inverse.generation.chain import run_sampler
from pag_inverse.generation.plans import SampleRow, default_row
from pag_inverse.generation.recipe import make_items, make_sample_recipe
from pag_inverse.generation.samplers import SAMPLERS
from pag_inverse.metrics.spectrum import LEAST_SIDE
from pag_inverse.priors import LatentPrior
from pag_inverse.runtime.streams import stream_seed
from pag_inverse.settings import (
    Hyperparameters,
    check_choice,
    check_different,
)

REAL_PICTURES = 256  # that samples are held against, or as many as are sampled


class GenerationSubject(Subject):
    """Samples of a prior (Algorithm 1) under each setting, held against real pictures."""

    paired = False

    def __init__(self, request: SweepRequest, device: str) -> None:
        if request.tasks:
            raise ValueError(f"--tasks {' '.join(request.tasks)} does nothing with --generation; leave one of them out")
        self._prior = request.load("pixel", device)
        kind: Literal["pixel", "latent"] = "latent" if isinstance(self._prior, LatentPrior) else "pixel"
        own = default_row(request.prior or "pixel", False, kind)
        solvers = request.solvers or (own.sampler,)
        check_different("--solvers", solvers)
        for name in solvers:
            check_choice("--solvers: the sampler", name, tuple(SAMPLERS))
        self._row = replace(own, steps=request.steps or own.steps, size=request.size or own.size)
        recipe = make_sample_recipe(replace(self._row, s=0.0), self._prior)
        if request.pictures < 2 or recipe.size < LEAST_SIDE:
            raise ValueError(
                f"{request.pictures} pictures of {recipe.size} pixels; --generation needs at least 2 of {LEAST_SIDE}"
            )
        self._items = {item.name: item for item in make_items(self._prior, request.pictures, request.seed)}
        self._seed, self.names = request.seed, list(self._items)[: request.first]
        files = training_pictures(request.data, max(REAL_PICTURES, request.pictures), request.output)
        self.real = {name: to_uint8(trials.read_truths([file], recipe.size)[0]) for name, file in files.items()}
        row = Hyperparameters(s=own.s, layers=own.layers, perturbation=own.perturbation, combination=own.combination)
        self.settings = request.kept([f for name in solvers for f in settings_of(request, name, row, self._prior)])
        name = Path(self._row.prior).stem
        self.title = f"samples of {name}, {recipe.size} px, {self._row.steps} steps"
        self.folder = f"generation_{name}"
        self.described = {"steps": self._row.steps, **described_run(request, recipe.size)}

    def row(self, setting: Setting) -> SampleRow:
        """The row of a setting."""
        given = {name: getattr(setting, name) for name in ("s", "layers", "perturbation", "combination")}
        return replace(self._row, **given, sampler="ddpm" if setting.solver == "ddpm" else "ddim")

    def key(self, setting: Setting, name: str) -> str:
        """By the row and the weights."""
        row = self.row(setting)
        made_of = [row.sampler, row.steps, row.s, list(row.layers), row.perturbation, row.combination]
        made_of += [row.adaptive_scale] if row.adaptive_scale else []
        return f"{digest([*made_of, list(row.pag_interval), self._prior.fingerprint])}/{name}"

    def steps(self, setting: Setting) -> int:
        """Of the sampler's chain."""
        return self._row.steps

    def make(self, setting: Setting, names: Sequence[str], tick: Callable[[], object]) -> Iterator[Made]:
        """Sample these pictures, each from the random stream that `sample` gives it."""
        recipe = make_sample_recipe(self.row(setting), self._prior)
        items = [self._items[name] for name in names]
        seeds = [stream_seed(self._seed, name, "sampling") for name in names]

        def show(*_: object) -> None:
            tick()

        made = run_sampler(
            recipe.model(items), recipe.sampler, recipe.image_shape, recipe.row.steps, seeds, callback=show
        )
        for b, name in enumerate(names):
            if b in made.failed:
                why = f"left the finite numbers at step {made.failed[b]}"
                yield Made(name, None, {}, f"{setting.name}, {name}: {why}")
            else:
                yield Made(name, to_uint8(made.x[b].float().clamp(-1, 1)), {})
