"""Sample pictures of a prior under Perturbed-Attention Guidance (Algorithm 1), on any number of processes.

Every picture is saved when it is done; the same command goes on where it was. At the end there are a grid of each run,
and results.md and results.csv with its metrics.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from pag_inverse.cli.arguments import Parser, add_explain, add_metrics, add_prior, batch_size, path, run
from pag_inverse.settings import PRECISIONS, field_names, validated
from pag_inverse.settings.reader import shipped_names

EXAMPLES = """examples:
  16 pictures of the embedded prior of pixels, with PAG:
    python scripts/sample.py
  both embedded priors, with and without PAG, as one table:
    python scripts/sample.py --suite embedded --output runs/embedded
  Table 1 of the paper on eight GPUs, with ADM's reference batch:
    torchrun --standalone --nproc-per-node 8 scripts/sample.py --suite table1 --count 50000 --weights-dir weights \\
        --device cuda --batch-size 32 --reference VIRTUAL_imagenet256_labeled.npz \\
        --inception-weights weights-inception-2015-12-05-6726825d.pth --npz --output runs/table1
  Stable Diffusion with a prompt, CFG and PAG:
    python scripts/sample.py --prior sd15 --weights-dir weights --prompt "a cat" --cfg 2.0 --pag 1.5 --device cuda
"""


def parser() -> Parser:
    """The flags of sample."""
    p = Parser("sample", __doc__, EXAMPLES)
    what = p.add_argument_group("what to sample")
    suites = "|".join(name for name in shipped_names("generation") if name != "defaults")
    what.add_argument("--suite", metavar=f"{suites}|FILE.yaml", help="the rows of a table, one run for each")
    what.add_argument("--rows", nargs="+", metavar="ROW", help="some rows of the suite")
    what.add_argument("--count", type=int, default=16, metavar="N", help="pictures of each run; of each prompt")
    what.add_argument("--prompt", help="for Stable Diffusion; by default the empty prompt")
    what.add_argument("--prompts", type=path, metavar="FILE", help="one prompt a line")
    what.add_argument("--classes", type=int, nargs="+", metavar="C", help="in turn; by default drawn for each picture")
    what.add_argument("--size", type=int, help="side in pixels; by default the row's or the prior's")
    what.add_argument("--seed", type=int, default=0)
    how = p.add_argument_group("in place of the row's")
    how.add_argument("--sampler", choices=("ddpm", "ddim"))
    how.add_argument("--steps", type=int, help="1 to 1000")
    how.add_argument("--eta", type=float, help="noise of ddim: 0 none, 1 as much as ddpm")
    how.add_argument("--pag", type=float, metavar="S", help="scale s of PAG; 0 is off")
    how.add_argument("--layers", nargs="+", metavar="LAYER", help="self-attention layers to perturb")
    how.add_argument("--perturbation", metavar="NAME", help="in place of the identity, such as seg or seg:sigma=2")
    how.add_argument("--combination", metavar="NAME", help="plain or apg, with options as those of --perturbation")
    how.add_argument("--pag-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="t / 1000 at which PAG acts")
    how.add_argument("--adaptive-scale", type=float, metavar="A", help="a of s(t) = max(0, s - a (1000 - t)), for PAG")
    how.add_argument("--cfg", type=float, help="classifier-free guidance; 1 is off")
    how.add_argument("--uncond-prior", dest="unconditional_prior", metavar="PRIOR", help="its unconditional network")
    add_prior(p.add_argument_group("prior"), "pixel")
    machine = p.add_argument_group("speed and memory")
    machine.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    machine.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the networks")
    machine.add_argument("--batch-size", type=batch_size, default=8, metavar="N|auto", help="pictures at once")
    runs = p.add_argument_group("the run")
    runs.add_argument("--output", type=path, metavar="DIR")
    runs.add_argument("--overwrite", action="store_true", help="replace a folder that holds another run")
    runs.add_argument("--npz", action="store_true", help="also write samples.npz as ADM's programs do")
    add_explain(runs)
    runs.add_argument("--log-json", action="store_true", help="progress as lines of JSON on stderr")
    metrics = p.add_argument_group("metrics")
    metrics.add_argument("--reference", type=path, metavar="DIR|FILE.npz", help="real pictures, or ADM's statistics")
    add_metrics(metrics)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: pictures failed, or the disk did; 2: bad input, one line, nothing written; 130: stopped by Ctrl-C."""
    from pag_inverse.runtime.processes import exit_status

    return exit_status(run("sample", parser(), argv, act))


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    from pag_inverse.metrics.networks import MetricsRequest
    from pag_inverse.runtime.processes import Processes

    request = request_of(args)
    metrics = MetricsRequest(args.lpips_net, args.lpips_weights, args.inception_weights)
    from pag_inverse.generation.run import sample_run

    return sample_run(request, metrics, Processes.of(os.environ))


def request_of(args: argparse.Namespace) -> Any:
    """The arguments as a validated request."""
    from pag_inverse.generation.plans import SampleRequest

    given = {name: getattr(args, name) for name in field_names(SampleRequest)}
    return validated(SampleRequest, {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})


if __name__ == "__main__":
    sys.exit(main())
