"""Train a small prior on a folder of pictures: a pixel U-Net, an autoencoder, or a U-Net on its latents.

A run lives in its output folder. The same command goes on with an unfinished run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from pag_inverse.cli.arguments import Parser, path, run
from pag_inverse.runtime.processes import exit_status
from pag_inverse.training.settings import DEFAULT_CROPS, RunOptions, TrainSettings, check_used

EXAMPLES = """examples:
  python scripts/train_prior.py --kind pixel --data photographs --output runs/pixel
  python scripts/train_prior.py --kind autoencoder --data photographs --output runs/autoencoder
  python scripts/train_prior.py --kind latent --data photographs --autoencoder runs/autoencoder/vae --output runs/latent
  torchrun --standalone --nproc-per-node 4 scripts/train_prior.py --kind pixel --data photographs --output runs/pixel \\
      --device cuda --precision bf16
"""


def parser() -> Parser:
    """The flags of train."""
    p = Parser("train", __doc__, EXAMPLES)
    p.add_argument("--kind", choices=DEFAULT_CROPS, required=True)
    p.add_argument("--data", type=path, required=True, help="folder of pictures, searched below it too")
    p.add_argument("--output", type=path, required=True, help="folder of the run")
    p.add_argument("--autoencoder", type=path, help="folder of a trained autoencoder (kind latent)")
    p.add_argument("--steps", type=int, help="20000")
    p.add_argument("--batch", type=int, help="crops of the smallest side in a batch, for each process: 16")
    p.add_argument("--crops", help="sides and shares, such as 64:0.8,128:0.2")
    p.add_argument("--learning-rate", type=float, help="0.0008")
    p.add_argument("--warmup", type=int, metavar="STEPS", help="200")
    p.add_argument("--ema", type=float, help="decay of the averaged weights: 0.9995")
    p.add_argument("--seed", type=int, help="0")
    p.add_argument("--precision", choices=("float32", "bf16"), help="of the network's arithmetic: float32")
    p.add_argument("--kl-weight", type=float, help="weight of the KL term (kind autoencoder): 0.0001")
    p.add_argument("--sigma-limit", type=float, help="the loss is weighted by min(sigma, this) (other kinds): 4")
    p.add_argument("--recolour", type=float, metavar="SHARE", help="of crops that get other colours: 0")
    p.add_argument("--init", type=path, help="safetensors file to start from")
    p.add_argument("--card-note", help="a sentence for the model card: what the pictures are, and their licence")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps")
    p.add_argument("--save-every", type=float, metavar="SECONDS", help="120")
    p.add_argument("--validate-every", type=int, metavar="STEPS", help="1000")
    p.add_argument("--preview-every", type=int, metavar="STEPS", help="of samples: 5000; 0: never")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: the disk is full, or another process ended; 2: bad input, or a run that diverged; 130: Ctrl-C."""
    return exit_status(run("train", parser(), argv, act))


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say; what is not given has the default of the settings."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    check_used(args.kind, given)
    given = {"crops": DEFAULT_CROPS[args.kind], **given}
    if "init" in given:
        given["init"] = str(args.init)
    settings, options = TrainSettings(**_part(given, TrainSettings)), RunOptions(**_part(given, RunOptions))
    from pag_inverse.training.run import train  # torch comes in here

    train(settings, options)
    return 0


def _part(given: dict[str, Any], kind: Any) -> dict[str, Any]:
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


if __name__ == "__main__":
    sys.exit(main())
