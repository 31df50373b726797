"""One training run: join the processes, check everything, train, write the weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pag_inverse.runtime.batching import available_memory
from pag_inverse.runtime.devices import check_device
from pag_inverse.runtime.failures import Interrupted
from pag_inverse.runtime.processes import Processes
from pag_inverse.schedule import BETAS
from pag_inverse.settings import load_prior_config
from pag_inverse.settings.files import check_file
from pag_inverse.storage.json_lines import read_lines
from pag_inverse.storage.places import check_apart, check_writable
from pag_inverse.training.crops import Crops, split_held_out
from pag_inverse.training.export import write_weights
from pag_inverse.training.folder import LOG, check_folder, hold
from pag_inverse.training.inputs import Inputs, read_inputs
from pag_inverse.training.loading import latent_encoder, make_network
from pag_inverse.training.objectives import (
    Objective,
    Validate,
    autoencoder_objective,
    eps_objective,
    validate_autoencoder,
    validate_eps,
)
from pag_inverse.training.preview import draw_preview
from pag_inverse.training.settings import RunOptions, TrainSettings, check_used, unusual
from pag_inverse.training.team import Team
from pag_inverse.training.trainer import Diverged, Preview, Trainer

LEAST_BYTES = 400  # of memory for a pixel of a batch; measured: 440 (latent), 2900 (others, bf16), 5500 (float32)
SOURCES = {"--data": "a folder of pictures", "--autoencoder": "the vae folder of a trained autoencoder"}


@dataclass(frozen=True)
class Run:
    """A run whose inputs are read and checked."""

    trainer: Trainer
    inputs: Inputs
    validate: Validate
    held_out: list[Path]


def train(settings: TrainSettings, options: RunOptions) -> None:
    """Train a network in `options.output`, or go on with the unfinished run there, and write its weights.

    ValueError: what does not fit, before anything is written; a run that diverges, after the weights of the last good
    step are written. OSError: the disk is full, or another process of the run ended; what was saved stays. Of several
    processes all raise what one of them meets.
    """
    check_used(settings.kind, unusual(settings))
    if (options.autoencoder is None) == (settings.kind == "latent"):
        raise ValueError("--autoencoder goes with --kind latent, and with it alone")
    team = Team(Processes.of(os.environ))
    team.join()
    device = team.processes.agreed(lambda: device_of(options.device, team))
    team.compute_on(device)
    with ExitStack() as stack:
        run = team.processes.agreed(lambda: prepare(settings, options, team, device))
        check_alike(run, team)
        if_first(team, lambda: stack.callback(hold(options.output).release))
        resumed = team.processes.agreed(run.trainer.resume)  # once more: the folder is now this run's alone
        announce(run.trainer, resumed, len(run.held_out))
        try:
            work(run, options)
        except OSError as error:
            raise Interrupted(f"{error}; what was saved stays, and the same command goes on") from error
    team.processes.leave()


def prepare(settings: TrainSettings, options: RunOptions, team: Team, device: torch.device) -> Run:
    """Read and check everything; nothing is written."""
    check_writable(options.output)
    check_sources(settings, options)
    check_folder(options.output)
    check_memory(settings, device)
    training, held_out = split_held_out(options.data, output=options.output)
    model = make_network(settings)
    objective, validate = make_objective(settings, options, model, held_out, device)
    data = Crops(training, settings.crops, settings.batch, settings.seed, team.rank, settings.recolour)
    inputs = read_inputs(options.data, sorted([*training, *held_out]), settings.init, options.autoencoder)
    trainer = Trainer(model, objective, data, settings, options.output, device, team, inputs.hashes)
    trainer.resume()
    return Run(trainer, inputs, validate, held_out)


def check_sources(settings: TrainSettings, options: RunOptions) -> None:
    """ValueError where an input is missing, of the wrong kind, or the output folder or in it."""
    folders = {"--data": options.data, "--autoencoder": options.autoencoder}
    for flag, folder in folders.items():
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{flag} {folder} is no folder; give {SOURCES[flag]}")
    if settings.init is not None:
        check_file(settings.init)
    files = [options.data, options.autoencoder, None if settings.init is None else Path(settings.init)]
    check_apart(options.output, [path for path in files if path is not None])


def work(run: Run, options: RunOptions) -> None:
    """Train to the end and write the weights."""
    trainer = run.trainer
    preview = preview_of(trainer.settings, options, run.held_out)
    try:
        trainer.run(options.save_every, options.validate_every, run.validate, options.preview_every, preview)
    except Diverged as error:
        diverged = error
        if_first(trainer.team, lambda: rescue(run, options, diverged))
    if_first(trainer.team, lambda: write_weights(trainer, options, run.inputs))


def if_first(team: Team, act: Callable[[], object]) -> None:
    """Do something in the first process; all wait for it, and raise what it raises."""
    if team.rank == 0:
        team.attempt(act)
    team.meet()


def check_alike(run: Run, team: Team) -> None:
    """ValueError where the processes do not see the same files: their folders must be shared."""
    seen = (run.inputs.hashes, run.trainer.step)
    if any(other != seen for other in team.processes.gather(seen)):
        raise ValueError("the processes see different files in --data or --output; use folders that all of them share")


def check_memory(settings: TrainSettings, device: torch.device) -> None:
    """ValueError where a batch cannot fit into the memory of this machine."""
    smallest, largest = (choose(side for side, _ in settings.crops) for choose in (min, max))
    needed = max(settings.batch * smallest**2, largest**2) * LEAST_BYTES
    there = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else available_memory()
    if needed > there:
        raise ValueError(
            f"batch is {settings.batch}: it takes more than {needed / 1e9:.0f} GB and {there / 1e9:.0f} GB are free; "
            "take a smaller --batch, or smaller --crops"
        )


def announce(trainer: Trainer, resumed: bool, held_out: int) -> None:
    """Say where the run starts, with what, and what is damaged in its log."""
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    trainer.say(
        f"{'going on at' if resumed else 'starting at'} step {trainer.step} of {trainer.settings.steps}; "
        f"{len(trainer.data.pictures)} pictures, {held_out} held out, {parameters:.2f} M parameters"
    )
    if damaged := read_lines(trainer.folder / LOG)[1]:
        trainer.say(f"{LOG}: {damaged} damaged lines are passed over")


def rescue(run: Run, options: RunOptions, error: Diverged) -> None:
    """Write the weights of the last good state of a run that diverged, and raise a ValueError that says so."""
    trainer = run.trainer
    if not trainer.resume() or trainer.step == 0:
        raise error
    write_weights(trainer, options, run.inputs)
    kept = f"{options.output} has the weights of step {trainer.step}"
    raise ValueError(f"{error}; {kept}: --init from them with a lower --learning-rate") from error


def device_of(name: str, team: Team) -> torch.device:
    """The device to train on; of several processes each has its own GPU."""
    if name == "meta":
        raise ValueError("device is 'meta'; it must be cpu, cuda, cuda:N or mps")
    return check_device(f"cuda:{team.processes.local}" if name == "cuda" and team.world > 1 else name)


def make_objective(
    settings: TrainSettings, options: RunOptions, model: Any, held_out: list[Path], device: torch.device
) -> tuple[Objective, Validate]:
    """The objective of a kind, and its validation on the held-out pictures."""
    side = max(side for side, _ in settings.crops)
    if settings.kind == "autoencoder":
        return autoencoder_objective(settings.kl_weight), validate_autoencoder(held_out, side, device)
    config = load_prior_config(settings.kind).betas
    betas = BETAS[config.schedule](config.start, config.end)
    abar = torch.from_numpy(np.cumprod(1 - betas)).float()
    encode = None if options.autoencoder is None else latent_encoder(options.autoencoder, model, betas, device)
    return eps_objective(abar, encode, settings.sigma_limit), validate_eps(held_out, side, abar, encode, device)


def preview_of(settings: TrainSettings, options: RunOptions, held_out: list[Path]) -> Preview:
    """What draws a preview into the run's folder; one that cannot be drawn does not end the run."""

    def preview(model: Any, step: int) -> dict[str, float]:
        output = options.output / f"preview_{step:07d}.png"
        try:
            return draw_preview(model, settings.kind, options.autoencoder, held_out, output)
        except ValueError as error:
            print(f"no preview of step {step}: {error}", file=sys.stderr)
            return {}

    return preview
