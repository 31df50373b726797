"""One training run: check everything, join the processes, train, write the weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pag_inverse.runtime.devices import check_device
from pag_inverse.runtime.processes import Processes
from pag_inverse.schedule import BETAS
from pag_inverse.settings import load_prior_config
from pag_inverse.training import networks
from pag_inverse.training.crops import Crops, split_held_out
from pag_inverse.training.export import write_weights
from pag_inverse.training.objectives import (
    Encode,
    Objective,
    Validate,
    autoencoder_objective,
    eps_objective,
    validate_autoencoder,
    validate_eps,
)
from pag_inverse.training.preview import draw_preview
from pag_inverse.training.settings import RunOptions, TrainSettings
from pag_inverse.training.trainer import Diverged, Preview, Trainer

NETWORKS: dict[str, Callable[[], Any]] = {
    "pixel": networks.pixel_unet,
    "autoencoder": networks.autoencoder,
    "latent": networks.latent_unet,
}


def train(settings: TrainSettings, options: RunOptions) -> None:
    """Train a network in `options.output`, or go on with the unfinished run there, and write its weights.

    ValueError: what does not fit, before anything is written; a run that diverges, after the weights of the last good
    step are written.
    """
    if (options.autoencoder is None) == (settings.kind == "latent"):
        raise ValueError("--autoencoder goes with --kind latent, and with it alone")
    check_folder(options.output)
    training, held_out = split_held_out(options.data)
    rank, device = join_processes(options.device)
    data = Crops(training, settings.crops, settings.batch, settings.seed, rank, settings.recolour)
    model = make_network(settings)
    objective, validate = make_objective(settings, options, held_out, device)
    options.output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(model, objective, data, settings, options.output, device)
    announce(trainer, trainer.resume(), len(held_out))
    try:
        preview = preview_of(settings, options, held_out)
        trainer.run(options.save_every, options.validate_every, validate, options.preview_every, preview)
    except Diverged as error:
        rescue(trainer, options, error)
    if rank == 0:
        write_weights(trainer, options)
    leave_processes()


def check_folder(folder: Path) -> None:
    """ValueError where files lie in the folder that are not a run's: the weights would be written among them."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not names & {"state.pt", "state.tmp", "log.jsonl"}:
        raise ValueError(f"{folder} has files in it that are not a training run's; choose another folder")


def announce(trainer: Trainer, resumed: bool, held_out: int) -> None:
    """Say where the run starts, and with what."""
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    trainer.say(
        f"{'going on at' if resumed else 'starting at'} step {trainer.step} of {trainer.settings.steps}; "
        f"{len(trainer.data.pictures)} pictures, {held_out} held out, {parameters:.2f} M parameters"
    )


def rescue(trainer: Trainer, options: RunOptions, error: Diverged) -> None:
    """Write the weights of the last good state of a run that diverged, and raise a ValueError that says so."""
    if not trainer.resume():
        raise error
    if trainer.rank == 0:
        write_weights(trainer, options)
    kept = f"{options.output} has the weights of step {trainer.step}"
    raise ValueError(f"{error}; {kept}: --init from them with a lower --learning-rate") from error


def join_processes(device: str) -> tuple[int, torch.device]:
    """This process's number and device: 0 and the one asked for, unless `torchrun` started several."""
    processes = Processes.of(os.environ)
    if processes.world == 1:
        return 0, check_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return processes.rank, torch.device(f"cuda:{processes.local}" if device == "cuda" else device)


def leave_processes() -> None:
    """Wait for the others and part from them."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def make_network(settings: TrainSettings) -> nn.Module:
    """The network of a kind, with weights that depend on the seed alone, or those of `init`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model: nn.Module = NETWORKS[settings.kind]()
    if settings.init is not None:
        load_init(model, Path(settings.init))
    return model


def make_objective(
    settings: TrainSettings, options: RunOptions, held_out: list[Path], device: torch.device
) -> tuple[Objective, Validate]:
    """The objective of a kind, and its validation on the held-out pictures."""
    side = max(side for side, _ in settings.crops)
    if settings.kind == "autoencoder":
        return autoencoder_objective(settings.kl_weight), validate_autoencoder(held_out, side, device)
    betas = load_prior_config(settings.kind).betas
    abar = torch.from_numpy(np.cumprod(1 - BETAS[betas.schedule](betas.start, betas.end))).float()
    encode = latent_encoder(options.autoencoder, device) if options.autoencoder is not None else None
    return eps_objective(abar, encode, settings.sigma_limit), validate_eps(held_out, side, abar, encode, device)


def preview_of(settings: TrainSettings, options: RunOptions, held_out: list[Path]) -> Preview:
    """What draws a preview into the run's folder."""

    def preview(model: Any, step: int) -> dict[str, float]:
        output = options.output / f"preview_{step:07d}.png"
        return draw_preview(model, settings.kind, options.autoencoder, held_out, output)

    return preview


def load_init(model: nn.Module, path: Path) -> None:
    """Load the weights of a safetensors file; ValueError where they are another network's."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights, own = load_file(path), model.state_dict()
    except SafetensorError as error:
        raise ValueError(f"--init {path}: {error}") from error
    shapes = [{key: tuple(tensor.shape) for key, tensor in held.items()} for held in (weights, own)]
    other = sorted({key for key, _ in shapes[0].items() ^ shapes[1].items()})
    if other:
        raise ValueError(
            f"--init {path} holds another network: {len(other)} tensors are missing, extra or of another shape, "
            f"the first {other[0]}"
        )
    model.load_state_dict({k: v.float() for k, v in weights.items()})


def latent_encoder(folder: Path, device: torch.device) -> Encode:
    """A function (x, generator) -> scaled latents drawn from the frozen autoencoder's posterior."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, local_files_only=True).requires_grad_(False).to(device).float()

    @torch.no_grad()
    def encode(x: Tensor, generator: torch.Generator) -> Tensor:
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(x)
        return ((posterior.mean + posterior.std * noise) * vae.config.scaling_factor).float()

    return encode
