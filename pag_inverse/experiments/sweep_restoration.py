"""The restorations of a sweep: simulated measurements of a task, under each setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pag_inverse.data.images import to_uint8
from pag_inverse.experiments import trials
from pag_inverse.experiments.methods import GUIDANCE, Method, digest, training_pictures
from pag_inverse.experiments.sweep_grid import Setting
from pag_inverse.experiments.sweep_subjects import Made, Subject, SweepRequest, described_run, settings_of
from pag_inverse.priors import Prior
from pag_inverse.settings import (
    Hyperparameters,
    TaskConfig,
    check_different,
    has_row,
    load_task,
    recommended_solver,
)
from pag_inverse.solvers import default_solver, solver_class
from pag_inverse.solvers.step_sizes import settle
from pag_inverse.storage.files import file_sha256

ROWS = "natural"  # of the embedded priors


class RestorationSubject(Subject):
    """Restorations of simulated measurements of a task, each solver with its row of the tables."""

    paired = True

    def __init__(self, request: SweepRequest, device: str) -> None:
        if len(request.tasks) > 1:
            raise ValueError(f"--tasks {' '.join(request.tasks)}: a sweep is over one task; give one")
        task = (*request.tasks, "gaussian_deblur")[0]
        solvers = request.solvers or (_recommended(task),)
        check_different("--solvers", solvers)
        side = request.size or 128
        self.names_by_file = _files(request)
        self._priors = _priors(request, solvers, device)
        rows = {name: _row(task, name, self._priors[name]) for name in solvers}
        config = rows[solvers[0]][0]
        truths = trials.read_truths(list(self.names_by_file.values()), side).to(device)
        self.names = list(self.names_by_file)
        self._trial = trials.make_trial(config, self.names, truths, request.seed)
        self._contents = {name: file_sha256(file) for name, file in self.names_by_file.items()}
        self.real = {name: to_uint8(truth) for name, truth in zip(self.names, truths, strict=True)}
        self._own = {name: _method(name, rows[name][1], self._priors[name], side, request.steps) for name in solvers}
        found = [f for name in solvers for f in settings_of(request, name, rows[name][1], self._priors[name])]
        self.settings = request.kept(found)
        for setting in self.settings:
            self.method(setting).check(self._priors[setting.solver], self._trial.problem)
        self.title, self.folder = f"{config.name}, {side} px", f"{config.name}_guidance"
        self.described = {"task": config.name, **trials.described(config), **described_run(request, side)}

    def method(self, setting: Setting) -> Method:
        """A solver under the guidance of a setting; further options of PAG are the row's."""
        own = self._own[setting.solver]
        if setting.s == 0:
            own = replace(own, pag_interval=(0.0, 1.0), adaptive_scale=0.0)
        return replace(
            own,
            s=setting.s,
            layers=setting.layers,
            perturbation=setting.perturbation,
            combination=setting.combination,
        )

    def key(self, setting: Setting, name: str) -> str:
        """By method, weights and the picture's content."""
        prior = self._priors[setting.solver]
        return f"{digest([self.method(setting).describe(), prior.fingerprint, self._contents[name]])}/{name}"

    def steps(self, setting: Setting) -> int:
        """Of the solver's chain."""
        return self._own[setting.solver].steps

    def make(self, setting: Setting, names: Sequence[str], tick: Callable[[], object]) -> Iterator[Made]:
        """Restore the measurements of these pictures."""
        part = self._trial.select([self.names.index(name) for name in names])
        method = self.method(setting)
        model = method.model(self._priors[setting.solver])
        found = trials.restore_samples(part, model, method.solver, method.steps, 1, tick=tick)
        images = found.samples[0].float().cpu()
        scores = trials.scores(part, images)
        for b, name in enumerate(names):
            if b in found.failed:
                yield Made(name, None, {}, f"{setting.name}, {name}: {found.failed[b]}")
            else:
                mine = {key: values[b] for key, values in scores.items()}
                yield Made(name, to_uint8(images[b]), {**mine, "residual": float(found.residuals[0, b])})


def _recommended(task: str) -> str:
    """The solver that the task recommends for pixels, or else the paper's."""
    return recommended_solver(task, "pixel", ROWS, pag=True) or default_solver("pixel")


def _files(request: SweepRequest) -> dict[str, Path]:
    found = training_pictures(request.data, request.pictures, request.output)
    return dict(list(found.items())[: request.first])


def _priors(request: SweepRequest, solvers: Sequence[str], device: str) -> dict[str, Prior]:
    """The prior of each solver, each loaded once."""
    names = {solver: request.prior or solver_class(solver).default_prior for solver in solvers}
    loaded = {name: request.load(name, device) for name in dict.fromkeys(names.values())}
    return {solver: loaded[name] for solver, name in names.items()}


def _row(task: str, solver: str, prior: Prior) -> tuple[TaskConfig, Hyperparameters]:
    """The task, and the row with PAG of the prior's data set; of the embedded priors where that has none."""
    own = prior.dataset
    rows = own if own and has_row(task, own, solver, pag=True) else ROWS
    config = load_task(task, rows, solver, image_size=trials.SIDE, pag=True)
    assert config.hyperparameters is not None
    return config, config.hyperparameters


def _method(solver: str, row: Hyperparameters, prior: Prior, side: int, steps: int | None) -> Method:
    """The row's method; with other steps, its step sizes are brought to that chain."""
    settled = settle(solver, row, prior, side, steps=steps, tuned_steps=row.steps if steps else None)
    return Method(settled.solver, settled.steps, **{name: getattr(row, name) for name in GUIDANCE})
