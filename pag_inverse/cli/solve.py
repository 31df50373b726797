"""Restore pictures: degrade them (or take a measurement as it is), solve the inverse problem, write what came out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pag_inverse.cli.arguments import Parser, batch_size, fail
from pag_inverse.restoration.request import Request, resolve
from pag_inverse.settings.files import DATASETS, PRIORS, SOLVERS, TASKS
from pag_inverse.settings.tables import PARTS, PRECISIONS, PREDICTIONS, SPACINGS, STEP_LIMITS, VARIANCES
from pag_inverse.settings.presets import SPEEDS

EXAMPLES = """examples:
  one bundled photograph, motion-blurred and restored with the embedded latent prior:
    python scripts/solve.py --task motion_deblur --solver psld --pag 5.0
  a folder of faces with the published FFHQ model and the table's row:
    python scripts/solve.py --task super_resolution --solver dps --prior ffhq --dataset ffhq \\
        --weights-dir weights --input faces --device cuda --batch-size 4
  a measurement of your own, blurred by a known kernel, four samples:
    python scripts/solve.py --task motion_deblur --solver dps --measurement blurred.png --kernel kernel.npy \\
        --sigma 0.02 --samples 4
"""


def parser() -> Parser:
    p = Parser("solve", __doc__, EXAMPLES)
    _what(p.add_argument_group("what to solve"))
    add_row(p.add_argument_group("in place of the table's row"))
    add_variants(p.add_argument_group("where the published programs and the equations differ"))
    add_speed(p.add_argument_group("speed and memory"))
    add_approximations(p.add_argument_group("faster, at a price in quality (the README has the measured ones)"))
    _run(p.add_argument_group("the run"))
    return p


def _what(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--task", help=f"{', '.join(TASKS)}, or a .yaml file written like theirs")
    p.add_argument("--solver", help=", ".join(SOLVERS))
    p.add_argument("--prior", help=f"{', '.join(PRIORS)}, or a path; by default pixel (dps) or latent (psld)")
    p.add_argument("--dataset", help=f"whose row of the tables: {', '.join(DATASETS)}; natural for embedded priors")
    p.add_argument("--input", type=Path, metavar="FILE|DIR", help="pictures to degrade and restore")
    p.add_argument("--measurement", type=Path, metavar="FILE", help="a measurement of your own (picture or .npy)")
    p.add_argument("--mask", type=Path, metavar="FILE", help="its mask, white = known (box_inpainting)")
    p.add_argument("--kernel", type=Path, metavar="FILE", help="its blur kernel, .npy or a grey picture")
    p.add_argument("--sigma", type=float, help="noise on the [-1, 1] range; by default the task's, 0.05")
    p.add_argument("--box", type=int, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"))
    p.add_argument("--prompt", help="for Stable Diffusion; by default the empty prompt")


def add_checkpoint(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--prior-config", type=Path, help="ADM's arguments, or the YAML that Stable Diffusion came with")
    p.add_argument("--prediction", choices=PREDICTIONS, help="what the prior predicts, where its files do not tell it")


def add_row(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--pag", type=float, metavar="S", help="scale s of PAG; 0 takes the row without PAG")
    p.add_argument("--eta", type=float)
    p.add_argument("--gamma", type=float, help="PSLD only")
    p.add_argument("--layers", nargs="+", metavar="LAYER", help="self-attention layers to perturb")
    p.add_argument("--steps", type=int, help="1 to 1000")
    p.add_argument(
        "--cfg", type=float, help="classifier-free guidance with a prompt; 1 is off (w of Eq. 14 is cfg - 1)"
    )


def add_variants(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--project", choices=("published", "adjoint"), help="PSLD's gluing map")
    p.add_argument("--renoise-prediction", action=argparse.BooleanOptionalAction, help="PSLD: noise on A(D(z0))")
    p.add_argument("--noise-in-hole", action=argparse.BooleanOptionalAction, help="noise after masking")
    p.add_argument("--encode", choices=("sample", "mode"), help="PSLD: the encoder's posterior")
    p.add_argument("--ddim-eta", type=float, help="PSLD: 0 is deterministic")
    p.add_argument("--variance", choices=VARIANCES, help="DPS: of priors that learned none")
    p.add_argument("--spacing", choices=SPACINGS, help="of the timesteps")
    p.add_argument("--step-scaling", choices=("constant", "sqrt_abar"), help="of eta and gamma along the chain")
    p.add_argument("--noise-floor", type=float, help="the data terms rest below so many sigma sqrt(m); 0: never")
    p.add_argument("--resize", choices=("bicubic", "reference"), default="bicubic")
    p.add_argument("--composite", choices=("none", "measurement"), default="none", help="paste the measured pixels")


def add_speed(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the networks; all else stays float32")
    p.add_argument(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        help="on a GPU, 10-bit factors in float32 products; by default torch's choice: convolutions yes, others no",
    )
    p.add_argument("--compile", action="store_true", help="torch.compile the networks: slow to start, then faster")
    p.add_argument("--channels-last", action="store_true", help="the networks' tensors with channels innermost")
    p.add_argument("--low-memory", action="store_true", help="compute activations again in the backward pass")


def add_approximations(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--speed", help=f"{', '.join(SPEEDS)}; exact, the row as it is, by default")
    p.add_argument(
        "--rescale-steps", type=int, metavar="N", help="eta and gamma are meant for N steps: bring them to --steps"
    )
    p.add_argument("--step-limit", choices=STEP_LIMITS, help="no step along the data's gradient goes past the noise")
    p.add_argument("--gradient-interval", type=int, metavar="K", help="follow the data at each K-th step only")
    p.add_argument("--gradient-part", choices=PARTS, help="where K holds: the early or the late half of the steps")
    p.add_argument("--encode-interval", type=int, metavar="K", help="PSLD: the gluing term at each K-th step only")
    p.add_argument("--pag-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of t / 1000; elsewhere s is 0")


def _run(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--samples", type=int, default=1, help="posterior samples of each measurement")
    p.add_argument(
        "--batch-size", type=batch_size, default=1, metavar="N|auto", help="images at once; auto: as many as fit"
    )
    p.add_argument("--size", type=int, help="side of the square picture; by default the prior's")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    p.add_argument("--output", type=Path, help="folder; by default results/TASK_SOLVER")
    p.add_argument("--overwrite", action="store_true", help="replace a folder that holds other settings")
    p.add_argument("--dry-run", action="store_true", help="print what would be used and stop")
    p.add_argument("--list-layers", action="store_true", help="print the prior's self-attention layers and stop")
    p.add_argument("--weights-dir", type=Path, help="folder of published weights (or PAG_INVERSE_WEIGHTS)")
    add_checkpoint(p)
    p.add_argument("--download", action="store_true", help="fetch missing published weights from the hub")


def main(argv: list[str] | None = None) -> int:
    """0: done; 1: an image failed; 2: bad input, one line on stderr, nothing written; 130: stopped by Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        return run(resolve(args))
    except (ValueError, OSError) as error:
        return fail("solve", error)
    except KeyboardInterrupt:
        print("solve: stopped; what is finished is kept, and the same command goes on", file=sys.stderr)
        return 130


def run(request: Request) -> int:
    from pag_inverse.cli import restore  # torch comes in here, after the arguments were found good

    if request.list_layers:
        return restore.list_layers(request)
    return restore.restore(request)


if __name__ == "__main__":
    sys.exit(main())
