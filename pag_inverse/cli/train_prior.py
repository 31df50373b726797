"""Train a small prior on a folder of pictures: a pixel U-Net, an autoencoder, or a U-Net on its latents.

A run lives in its output folder and goes on from where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pag_inverse.cli.arguments import Parser, fail

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pag_inverse.training.trainer import Objective, Trainer, TrainSettings

KINDS = ("pixel", "autoencoder", "latent")
BETAS = {"pixel": ("linear", 1e-4, 0.02), "latent": ("scaled_linear", 0.00085, 0.012)}
EPS_LOSS = "squared error of the predicted eps times min(sigma, {limit:g}), t = 1000 u^1.5 for u uniform"
OBJECTIVES = {
    "pixel": f"{EPS_LOSS}; linear betas 1e-4 to 0.02",
    "latent": f"{EPS_LOSS}; scaled-linear betas 0.00085 to 0.012",
    "autoencoder": "mean absolute error of the round trip, and the KL term of its posterior",
}
CROPS = {"pixel": "64:0.8,128:0.2", "autoencoder": "64:0.9,128:0.1", "latent": "128:0.85,256:0.15"}
EXAMPLES = """examples:
  python scripts/train_prior.py --kind pixel --data photographs --output runs/pixel
  python scripts/train_prior.py --kind autoencoder --data photographs --output runs/autoencoder
  python scripts/train_prior.py --kind latent --data photographs --autoencoder runs/autoencoder/vae --output runs/latent
  torchrun --standalone --nproc-per-node 4 scripts/train_prior.py --kind pixel --data photographs --output runs/pixel \\
      --device cuda --precision bf16
"""


def parser() -> Parser:
    p = Parser("train_prior", __doc__, EXAMPLES)
    p.add_argument("--kind", choices=KINDS, required=True)
    p.add_argument("--data", type=Path, required=True, help="folder of pictures, searched below it too")
    p.add_argument("--output", type=Path, required=True, help="folder of the run; an unfinished run in it goes on")
    p.add_argument("--autoencoder", type=Path, help="folder of a trained autoencoder (kind latent)")
    p.add_argument("--steps", type=int, default=20000)
    p.add_argument("--batch", type=int, default=16, help="crops of the smallest side in a batch, for each process")
    p.add_argument("--crops", help="sides and shares, such as 64:0.8,128:0.2")
    p.add_argument("--learning-rate", type=float, default=8e-4)
    p.add_argument("--warmup", type=int, default=200)
    p.add_argument("--ema", type=float, default=0.9995)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    p.add_argument("--kl-weight", type=float, default=1e-4, help="weight of the KL term (kind autoencoder)")
    p.add_argument("--sigma-limit", type=float, default=4.0, help="the loss is weighted by min(sigma, this)")
    p.add_argument(
        "--recolour", type=float, default=0.0, metavar="SHARE", help="crops whose colours are permuted and saturated"
    )
    p.add_argument("--init", type=Path, help="safetensors to start from")
    p.add_argument("--card-note", help="a sentence for the model card: what the pictures are, and their licence")
    p.add_argument("--device", default="cpu")
    p.add_argument("--save-every", type=float, default=120.0, metavar="SECONDS")
    p.add_argument("--validate-every", type=int, default=1000, metavar="STEPS")
    p.add_argument("--strip-every", type=int, default=5000, metavar="STEPS", help="samples and restorations; 0: never")
    return p


def main(argv: list[str] | None = None) -> int:
    """Parse, train, write; bad input is one line on stderr and exit status 2."""
    args = parser().parse_args(argv)
    try:
        settings = settings_of(args)
        train(args, settings)
    except (ValueError, OSError) as error:
        return fail("train_prior", error)
    except KeyboardInterrupt:
        print("train_prior: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def settings_of(args: argparse.Namespace) -> TrainSettings:
    from pag_inverse.training.trainer import TrainSettings

    for name in ("steps", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    if not args.sigma_limit > 0:
        raise ValueError(f"--sigma-limit is {args.sigma_limit}; it must be above 0")
    if not 0 <= args.recolour <= 1:
        raise ValueError(f"--recolour is {args.recolour}; it must be 0 to 1")
    if not args.data.is_dir():
        raise ValueError(f"--data {args.data} is no folder")
    if (args.autoencoder is None) == (args.kind == "latent"):
        raise ValueError("--autoencoder goes with --kind latent, and with it alone")
    return TrainSettings(
        args.kind,
        args.steps,
        args.batch,
        parse_crops(args.crops or CROPS[args.kind]),
        args.learning_rate,
        args.warmup,
        args.ema,
        args.seed,
        args.precision,
        BETAS[args.kind][0] if args.kind in BETAS else "",
        str(args.init) if args.init else None,
        args.sigma_limit,
        args.recolour,
    )


def parse_crops(text: str) -> tuple[tuple[int, float], ...]:
    try:
        pairs = [part.split(":") for part in text.split(",")]
        crops = tuple((int(side), float(share)) for side, share in pairs)
    except ValueError:
        raise ValueError(f"--crops {text!r}; it must read like 64:0.8,128:0.2") from None
    if any(side < 32 or side % 32 or share <= 0 for side, share in crops):
        raise ValueError(f"--crops {text!r}; sides are multiples of 32 and shares above 0")
    return crops


def train(args: argparse.Namespace, settings: TrainSettings) -> None:
    import torch

    from pag_inverse.training.trainer import Crops, Diverged, Trainer, split_held_out

    rank, device = join_processes(args.device)
    training, held_out = split_held_out(args.data)
    data = Crops(training, settings.crops, settings.batch, settings.seed, rank, settings.recolour)
    torch.manual_seed(args.seed)  # the initial weights; everything later has generators of its own
    model, objective, validate = wire(args, settings, held_out, device)
    args.output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(model, objective, data, settings, args.output, device)
    resumed = trainer.resume()
    trainer.say(
        f"{'going on at' if resumed else 'starting at'} step {trainer.step} of {settings.steps}; "
        f"{len(data.pictures)} pictures, {len(held_out)} held out, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"
    )
    strip = strip_of(args, held_out)
    try:
        trainer.run(args.save_every, args.validate_every, validate, args.strip_every, strip)
    except Diverged as error:
        if not trainer.resume():
            raise
        if rank == 0:
            write_weights(trainer, args)
        kept = f"{args.output} has the weights of step {trainer.step}"
        raise ValueError(f"{error}; {kept}: --init from them with a lower --learning-rate") from error
    if rank == 0:
        write_weights(trainer, args)
    leave_processes()


def join_processes(device: str) -> tuple[int, torch.device]:
    """This process's number and device: 0 and the one asked for, unless `torchrun` started several."""
    import os

    import torch
    import torch.distributed as dist

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, torch.device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    local = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    return dist.get_rank(), torch.device(local)


def leave_processes() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def strip_of(args: argparse.Namespace, held_out: list[Path]) -> Callable[[Any, int], dict[str, float]]:
    """What draws a strip of samples and restorations into the run's folder."""
    from pag_inverse.training.preview import draw_strip

    def strip(model: Any, step: int) -> dict[str, float]:
        return draw_strip(model, args.kind, args.autoencoder, held_out, args.output / f"strip_{step:07d}.png")

    return strip


def wire(
    args: argparse.Namespace, settings: TrainSettings, held_out: list[Path], device: torch.device
) -> tuple[Any, Objective, Callable[[Any], dict[str, float]]]:
    """The network, its objective and its validation."""
    import numpy as np
    import torch

    from pag_inverse.training import trainer as training
    from pag_inverse.training import networks as architectures
    from pag_inverse.schedule import BETAS as SCHEDULES

    side = max(side for side, _ in settings.crops)
    if settings.kind == "autoencoder":
        model = architectures.autoencoder()
        load_init(model, args.init)
        return (
            model,
            training.autoencoder_objective(args.kl_weight),
            training.validate_autoencoder(held_out, side, device),
        )
    abar = torch.from_numpy(np.cumprod(1 - SCHEDULES[settings.betas]())).float()
    encode = latent_encoder(args.autoencoder, device) if settings.kind == "latent" else None
    model = architectures.latent_unet() if settings.kind == "latent" else architectures.pixel_unet()
    load_init(model, args.init)
    return (
        model,
        training.eps_objective(abar, encode, settings.sigma_limit),
        training.validate_eps(held_out, side, abar, encode, device),
    )


def load_init(model: nn.Module, path: Path | None) -> None:
    if path is not None:
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


def latent_encoder(folder: Path, device: torch.device) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A function (x, generator) -> scaled latents drawn from the frozen autoencoder's posterior."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, local_files_only=True).requires_grad_(False).to(device).float()

    @torch.no_grad()
    def encode(x: Tensor, generator: torch.Generator) -> Tensor:
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(x)
        return ((posterior.mean + posterior.std * noise) * vae.config.scaling_factor).float()

    return encode


def write_weights(trainer: Trainer, args: argparse.Namespace) -> None:
    """The averaged weights, in half precision and diffusers' layout, with a scheduler and a model card beside them."""
    from diffusers import DDPMScheduler

    from pag_inverse.data.images import write_whole

    model: Any = trainer.model
    model.load_state_dict(trainer.ema.shadow)
    if args.kind == "autoencoder":
        model.register_to_config(scaling_factor=round(1 / latent_deviation(trainer), 5))
    model.to("cpu").half().save_pretrained(args.output / ("vae" if args.kind == "autoencoder" else "unet"))
    if args.kind == "latent":
        shutil.copytree(args.autoencoder, args.output / "vae", dirs_exist_ok=True)
    if args.kind != "autoencoder":
        start, end = BETAS[args.kind][1:]
        DDPMScheduler(beta_schedule=BETAS[args.kind][0], beta_start=start, beta_end=end).save_pretrained(
            args.output / "scheduler"
        )
    write_whole(args.output / "README.md", model_card(trainer, args).encode())


def latent_deviation(trainer: Trainer) -> float:
    """The standard deviation of the latents of the first training batches."""
    import torch

    batches = [trainer.data(step).to(trainer.device) for step in range(16)]
    model: Any = trainer.model
    with torch.no_grad():
        return float(torch.cat([model.encode(x).latent_dist.mean.flatten() for x in batches]).std())


def model_card(trainer: Trainer, args: argparse.Namespace) -> str:
    """What was trained, on what, how far, and what the held-out pictures say."""
    s = trainer.settings
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    crops = ", ".join(f"{share:.0%} of the batches at {side} px" for side, share in s.crops)
    if s.recolour:
        crops += f"; {s.recolour:.0%} of the crops with permuted channels and up to 4 times the saturation"
    processes = f" in each of {trainer.world} processes" if trainer.world > 1 else ""
    found = trainer.last_validation()
    lines = [f"# A {s.kind} network for pag_inverse", ""]
    lines += [f"{parameters:.2f} M parameters, trained with `scripts/train_prior.py --kind {s.kind}`."]
    lines += [
        f"Data: {len(trainer.data.pictures)} pictures; random crops with flips, {crops}.",
        f"{s.steps} steps of up to {s.batch} crops{processes}, AdamW at {s.learning_rate:g} with {s.warmup} steps of "
        f"warm-up and a linear decay over the last quarter, averaged weights ({s.ema:g}), {s.precision}.",
        f"Started from {'earlier weights' if s.init else 'random weights'}.",
        f"Objective: {OBJECTIVES[s.kind].format(limit=s.sigma_limit)}.",
        f"Held-out pictures at the end: {', '.join(f'{k} {v:.4g}' for k, v in found.items()) or 'not measured'}.",
        *([args.card_note] if args.card_note else []),
    ]
    return "\n\n".join([lines[0], *lines[2:]]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
