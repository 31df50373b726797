"""What a sweep over guidance is set to, and what it makes under each setting."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pag_inverse.data.images import Picture
from pag_inverse.experiments.methods import check_words
from pag_inverse.experiments.sweep_grid import Setting, grid, layer_sets
from pag_inverse.priors import Prior, load_prior
from pag_inverse.settings import (
    Count,
    Hyperparameters,
    Names,
    NonNegative,
    settings,
)
from pag_inverse.settings.request import Device, Steps


@settings
class SweepRequest:
    """What is swept, and on what.

    The one of `tasks` is restored, or with `generation` the prior is sampled. `solvers` are the task's, or samplers
    (ddpm, ddim) of a generation. Each of `scales` above 0 is tried at each set of `layers`, see `layer_sets`, under
    each of `perturbations` and `combinations`; s = 0 always is. Where a list is empty, it is the row's. `pictures` of
    `data` are restored; of a generation so many are sampled, and held against the pictures of `data`. `rank_by` is a
    measure of the reports; by default psnr, or of a generation fid where `inception_weights` are given, else spectrum.
    """

    data: Path
    output: Path
    tasks: Names = ()
    generation: bool = False
    solvers: Names = ()
    prior: str | None = None
    weights_dir: Path | None = None
    scales: tuple[NonNegative, ...] = ()
    layers: Names = ()
    among: Names = ()
    perturbations: Names = ()
    combinations: Names = ()
    steps: Steps | None = None
    only: Names = ()
    pictures: Count = 8
    first: Count | None = None
    size: Count | None = None
    batch_size: Count = 2
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0
    device: Device = "cpu"
    table_only: bool = False
    rank_by: Literal["psnr", "ssim", "lpips", "spectrum", "fid"] | None = None
    lpips_net: Literal["vgg", "alex"] = "vgg"
    lpips_weights: Path | None = None
    inception_weights: Path | None = None

    def load(self, name: str, device: str) -> Prior:
        """A prior, or that of the request in its place."""
        return load_prior(self.prior or name, weights_dir=self.weights_dir, device=device, precision=self.precision)

    def kept(self, found: Sequence[Setting]) -> list[Setting]:
        """The settings with a word of `only` in their name, and those without PAG; ValueError: a word that none has."""
        check_words(self.only, [f.name for f in found])
        chosen = [f for f in found if not self.only or any(word in f.name for word in self.only)]
        return [f for f in found if f.s == 0 or f in chosen]


@dataclass(frozen=True)
class Made:
    """A picture that was made under a setting; its scores, or the reason why it failed."""

    name: str
    picture: Picture | None
    scores: Mapping[str, float]
    error: str = ""


class Subject(abc.ABC):
    """What a sweep is about; all of it is checked when it is made.

    title: of the reports. folder: below the output. described: all that decides the results beside a setting. names: of
    the pictures. real: (n, H, W, 3) pictures that results are held against, by name.
    """

    title: str
    folder: str
    described: Mapping[str, Any]
    names: Sequence[str]
    settings: Sequence[Setting]
    real: Mapping[str, Picture]
    paired: bool  # whether results have the names of the real pictures

    @abc.abstractmethod
    def key(self, setting: Setting, name: str) -> str:
        """What a picture under a setting is known by: all that decides it."""

    @abc.abstractmethod
    def steps(self, setting: Setting) -> int:
        """Of its chain."""

    @abc.abstractmethod
    def make(self, setting: Setting, names: Sequence[str], tick: Callable[[], object]) -> Iterator[Made]:
        """Make pictures in one batch; `tick()` is called after each step."""


def settings_of(request: SweepRequest, solver: str, row: Hyperparameters, prior: Prior) -> list[Setting]:
    """The grid of a solver; what the request leaves open is the row's."""
    if not (request.layers or row.layers):
        raise ValueError(f"{solver} has no row with PAG for this prior; give --layers, such as each")
    return grid(
        solver,
        layer_sets(request.layers or (",".join(row.layers),), request.among, prior),
        request.scales or (row.s or 1.0,),
        request.perturbations or (row.perturbation,),
        request.combinations or (row.combination,),
    )


def described_run(request: SweepRequest, side: int) -> dict[str, Any]:
    """What of a request decides the results of every setting."""
    return {
        "size": side,
        "seed": request.seed,
        "precision": request.precision,
        "device": request.device.partition(":")[0],
    }
