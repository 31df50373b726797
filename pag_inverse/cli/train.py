"""Train a small prior on a folder of pictures: a pixel U-Net, an autoencoder, or a U-Net on its latents.

A run lives in its output folder. The same command goes on with an unfinished run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pag_inverse.cli.arguments import Parser, run
from pag_inverse.training.settings import DEFAULT_CROPS, RunOptions, TrainSettings

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
    p.add_argument("--data", type=Path, required=True, help="folder of pictures, searched below it too")
    p.add_argument("--output", type=Path, required=True, help="folder of the run")
    p.add_argument("--autoencoder", type=Path, help="folder of a trained autoencoder (kind latent)")
    p.add_argument("--steps", type=int, default=20000)
    p.add_argument("--batch", type=int, default=16, help="crops of the smallest side in a batch, for each process")
    p.add_argument("--crops", help="sides and shares, such as 64:0.8,128:0.2")
    p.add_argument("--learning-rate", type=float, default=8e-4)
    p.add_argument("--warmup", type=int, default=200, metavar="STEPS")
    p.add_argument("--ema", type=float, default=0.9995, help="decay of the averaged weights")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    p.add_argument("--kl-weight", type=float, default=1e-4, help="weight of the KL term (kind autoencoder)")
    p.add_argument("--sigma-limit", type=float, default=4.0, help="the loss is weighted by min(sigma, this)")
    p.add_argument("--recolour", type=float, default=0.0, metavar="SHARE", help="of crops that get other colours")
    p.add_argument("--init", help="safetensors file to start from")
    p.add_argument("--card-note", help="a sentence for the model card: what the pictures are, and their licence")
    p.add_argument("--device", default="cpu")
    p.add_argument("--save-every", type=float, default=120.0, metavar="SECONDS")
    p.add_argument("--validate-every", type=int, default=1000, metavar="STEPS")
    p.add_argument("--preview-every", type=int, default=5000, metavar="STEPS", help="of samples; 0: never")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 2: bad input, or a run that diverged, one line on stderr; 130: stopped by Ctrl-C."""
    return run("train", parser(), argv, act)


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    args.crops = args.crops or DEFAULT_CROPS[args.kind]
    settings, options = TrainSettings(**_part(args, TrainSettings)), RunOptions(**_part(args, RunOptions))
    from pag_inverse.training.run import train  # torch comes in here

    train(settings, options)
    return 0


def _part(args: argparse.Namespace, kind: Any) -> dict[str, Any]:
    return {field.name: getattr(args, field.name) for field in fields(kind)}


if __name__ == "__main__":
    sys.exit(main())
