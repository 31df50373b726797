"""Run a pipeline of Stable Diffusion under PAG: ControlNet with an empty prompt, inpainting, or the x4 upscaler.

controlnet: pictures from pose skeletons or depth maps. inpaint: what a mask hides is filled in. upscale: pictures four
times larger. Weights are folders in diffusers' layout, or lie in the cache of the hub; nothing is fetched without
--download. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pag_inverse.cli.arguments import Parser, path, run
from pag_inverse.settings import PRECISIONS, validated
from pag_inverse.settings.pipeline import PipelineRequest

EXAMPLES = """examples:
  python scripts/pipeline.py controlnet --control pose --input skeletons --weights sd15 --controlnet openpose --output o
  python scripts/pipeline.py inpaint --input photo.png --mask mask.png --weights sd15-inpainting --output o
  python scripts/pipeline.py upscale --input small.png --download --pag 3.0 --output o --device cuda
"""
KINDS = ("controlnet", "inpaint", "upscale")


def parser() -> Parser:
    """The flags of pipeline."""
    p = Parser("pipeline", __doc__, EXAMPLES)
    p.add_argument("kind", choices=KINDS)
    p.add_argument("--input", type=path, required=True, metavar="FILE|DIR", help="pictures, or control pictures")
    p.add_argument("--control", choices=("pose", "depth"), help="of controlnet: what the pictures show; default: pose")
    p.add_argument("--mask", type=path, metavar="FILE", help="of inpaint: white = known, black = to be filled in")
    p.add_argument("--weights", type=path, metavar="DIR", help="the pipeline's folder; by default the hub's cache")
    p.add_argument("--controlnet", type=path, metavar="DIR", help="the control network's folder")
    p.add_argument("--download", action="store_true", help="fetch missing weights from the hub")
    p.add_argument("--pag", type=float, metavar="S", help="scale s of PAG; by default the paper's")
    p.add_argument("--layers", nargs="+", metavar="LAYER", help="self-attention layers to perturb")
    p.add_argument("--cfg", type=float, default=1.0, help="classifier-free guidance; 1 is off")
    p.add_argument("--prompt", default="", help="by default the empty prompt")
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--noise-level", type=int, default=20, help="of upscale: noise on the small picture, 0 to 350")
    p.add_argument("--samples", type=int, default=1, help="pictures of each input")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    p.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the networks")
    p.add_argument("--output", type=path, required=True, metavar="DIR")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: a picture failed; 2: bad input, one line on stderr, nothing written; 130: stopped by Ctrl-C."""
    return run("pipeline", parser(), argv, act)


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    if args.control is not None and args.kind != "controlnet":
        raise ValueError(f"--control goes with controlnet, not with {args.kind}; leave it out")
    name = (args.control or "pose") if args.kind == "controlnet" else args.kind
    taken = ("cfg", "prompt", "steps", "noise_level", "samples", "seed", "device", "precision")
    given = {key: getattr(args, key) for key in taken}
    layers = None if args.layers is None else tuple(args.layers)
    request = validated(PipelineRequest, {"name": name, "s": args.pag, "layers": layers, **given})
    files = {key: getattr(args, key) for key in ("mask", "weights", "controlnet", "download")}
    from pag_inverse.pipelines.run import pipeline_run  # torch comes in here, after the arguments were found good

    return pipeline_run(request, args.input, args.output, **files)


if __name__ == "__main__":
    sys.exit(main())
