"""What a finished run leaves: averaged weights in diffusers' layout, a scheduler, and a model card."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save

from pag_inverse.settings import load_prior_config
from pag_inverse.training.folder import CARD, write_changed
from pag_inverse.training.inputs import Inputs
from pag_inverse.training.settings import RunOptions, TrainSettings
from pag_inverse.training.state import all_finite
from pag_inverse.training.trainer import Trainer

EPS_LOSS = "squared error of the predicted eps times min(sigma, {limit:g}), t = 1000 u^1.5 for u uniform; {betas}"
AUTOENCODER_LOSS = "mean absolute error of the round trip, and {kl:g} times the KL term of its posterior"


def write_weights(trainer: Trainer, options: RunOptions, inputs: Inputs) -> None:
    """Write the averaged weights in half precision, with what a prior needs beside them, into the run's folder.

    A file that has its content already is left as it is. ValueError, before anything is written, where the weights
    hold NaN or Inf.
    """
    for name, content in exported(trainer, options, inputs).items():
        write_changed(options.output / name, content)


def exported(trainer: Trainer, options: RunOptions, inputs: Inputs) -> dict[str, bytes]:
    """The files of a finished run by their path in its folder, the model card last."""
    model: Any = trainer.model
    kind = trainer.settings.kind
    model.load_state_dict(trainer.ema.shadow)
    weights = {key: value.cpu().half().contiguous() for key, value in trainer.ema.shadow.items()}
    if not all_finite(weights):
        raise ValueError(f"the weights of step {trainer.step} hold NaN or Inf in half precision; they are not written")
    if kind == "autoencoder":
        model.register_to_config(scaling_factor=round(1 / latent_deviation(trainer), 5))
    own = "vae" if kind == "autoencoder" else "unet"
    files = {
        f"{own}/diffusion_pytorch_model.safetensors": save(weights, metadata={"format": "pt"}),
        f"{own}/config.json": model.to_json_string().encode(),
        **{f"vae/{name}": content for name, content in inputs.autoencoder.items()},
    }
    if kind != "autoencoder":
        files["scheduler/scheduler_config.json"] = scheduler_config(kind)
    return {**files, CARD: model_card(trainer, options).encode()}


def latent_deviation(trainer: Trainer) -> float:
    """The standard deviation of the latents of the first training batches; ValueError where it is no scale."""
    batches = [trainer.data(step).to(trainer.device) for step in range(16)]
    model: Any = trainer.model
    with torch.no_grad():
        found = float(torch.cat([model.encode(x).latent_dist.mean.flatten() for x in batches]).std())
    if not 1e-4 < found < 1e4:
        raise ValueError(f"the latents deviate by {found:g}, from 0.0001 to 10000 is a scale; train on other pictures")
    return found


def model_card(trainer: Trainer, options: RunOptions) -> str:
    """A page that says what was trained, on what, how far, and how it does on the held-out pictures."""
    s = trainer.settings
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    crops = ", ".join(f"{share:.0%} of the batches at {side} px" for side, share in s.crops)
    if s.recolour:
        crops += f"; {s.recolour:.0%} of the crops with permuted channels and up to 4 times the saturation"
    processes = f" in each of {trainer.trained_in} processes" if trainer.trained_in > 1 else ""
    found = trainer.last_validation()
    paragraphs = [
        f"# A {s.kind} network for pag_inverse",
        f"{parameters:.2f} M parameters, trained with `scripts/train_prior.py --kind {s.kind}`.",
        f"Data: {len(trainer.data.pictures)} pictures; random crops with flips, {crops}.",
        f"{s.steps} steps of up to {s.batch} crops{processes}, AdamW at {s.learning_rate:g} with {s.warmup} steps of "
        f"warm-up and a linear decay over the last quarter, averaged weights ({s.ema:g}), {s.precision}.",
        f"Started from {'earlier weights' if s.init else 'random weights'}.",
        f"Objective: {_objective(s)}.",
        f"Held-out pictures at the end: {', '.join(f'{k} {v:.4g}' for k, v in found.items()) or 'not measured'}.",
        *([options.card_note] if options.card_note else []),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _objective(s: TrainSettings) -> str:
    if s.kind == "autoencoder":
        return AUTOENCODER_LOSS.format(kl=s.kl_weight)
    betas = load_prior_config(s.kind).betas
    words = f"{betas.schedule.replace('_', '-')} betas {betas.start:g} to {betas.end:g}"
    return EPS_LOSS.format(limit=s.sigma_limit, betas=words)


def scheduler_config(kind: str) -> bytes:
    """The noise schedule as diffusers reads it."""
    from diffusers import DDPMScheduler

    betas = load_prior_config(kind).betas
    scheduler: Any = DDPMScheduler(beta_schedule=betas.schedule, beta_start=betas.start, beta_end=betas.end)
    return str(scheduler.to_json_string()).encode()
