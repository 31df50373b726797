"""Restore pictures: degrade them (or take a measurement as it is), solve the inverse problem, write what came out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pag_inverse.cli.arguments import (
    Parser,
    add_explain,
    add_guidance,
    add_machine,
    add_prior,
    add_run,
    check_used,
    path,
    run,
    solve_settings,
    task_help,
)
from pag_inverse.settings import AUTO, TASKS, SolveRequest, validated

EXAMPLES = """examples:
  one bundled photograph, motion-blurred and restored with the embedded latent prior:
    python scripts/solve.py --task motion_deblur --solver psld --pag 5.0
  the same with the solver that the task recommends:
    python scripts/solve.py --task motion_deblur
  a folder of pictures, made 8 times smaller and restored in few steps:
    python scripts/solve.py --task super_resolution --input pictures --speed draft
  a measurement of your own, blurred by a known kernel (a point spread function), four samples:
    python scripts/solve.py --task motion_deblur --measurement blurred.png --kernel kernel.npy --sigma 0.02 --samples 4
  a scratch painted over in magenta:
    python scripts/solve.py --task inpaint --measurement photo.png --remove-colour '#ff00ff' --composite measurement
"""


def parser() -> Parser:
    """The flags of solve."""
    p = Parser("solve", __doc__, EXAMPLES)
    what = p.add_argument_group("what to solve")
    what.add_argument("--task", help=task_help())
    what.add_argument(
        "--solver", default=AUTO, help="by name (--set help lists them); by default auto: the task's for the prior"
    )
    what.add_argument("--dataset", metavar="ROWS", help="whose row of the tables: ffhq, imagenet, natural, ...")
    what.add_argument("--input", type=path, metavar="FILE|DIR", help="pictures to degrade and restore")
    what.add_argument("--whole", action="store_true", help="keep the size of the pictures; by default a central square")
    what.add_argument("--prompt", help="for Stable Diffusion; by default the empty prompt")
    add_measurement(p.add_argument_group("a measurement of your own, and what of a picture is missing"))
    guidance = p.add_argument_group("in place of the table's row")
    guidance.add_argument("--eta", type=float, help="the solver's option eta, as --set eta=...")
    guidance.add_argument("--gamma", type=float, help="the solver's option gamma, as --set gamma=...")
    add_guidance(guidance)
    add_prior(p.add_argument_group("prior"))
    add_machine(p.add_argument_group("speed and memory"))
    runs = p.add_argument_group("the run")
    add_run(runs)
    add_explain(runs)
    runs.add_argument("--dry-run", action="store_true", help="print what would be used and stop")
    runs.add_argument("--list-layers", action="store_true", help="print the prior's self-attention layers and stop")
    return p


def add_measurement(p: argparse._ArgumentGroup) -> None:
    """A measurement and what belongs to it; of folders, files are matched by name."""
    p.add_argument("--measurement", type=path, metavar="FILE|DIR", help="pictures or .npy arrays, taken as they are")
    p.add_argument("--mask", type=path, metavar="FILE|DIR", help="their masks, white = measured")
    p.add_argument("--mask-convention", choices=("white-measured", "white-missing"), default="white-measured")
    p.add_argument("--box", type=int, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"), help="what is missing")
    p.add_argument("--remove-colour", metavar="COLOUR", help="pixels of this colour are missing: R,G,B or #RRGGBB")
    p.add_argument("--colour-tolerance", type=int, default=24, metavar="N", help="of 255, in each channel")
    p.add_argument("--grow", type=int, metavar="N", help="pixels more are missing; by default 0, of a colour 2")
    p.add_argument("--kernel", type=path, metavar="FILE|DIR", help="point spread functions: y = kernel * x")
    p.add_argument("--scale", type=int, metavar="N", help="of a super-resolution task: N times larger")
    p.add_argument("--truth", type=path, metavar="FILE|DIR", help="clean pictures for metrics; solvers never see them")
    p.add_argument("--composite", choices=("none", "measurement"), default="none", help="paste what was measured")
    p.add_argument("--composite-edge", type=int, default=0, metavar="N", help="pixels over which it fades in")
    p.add_argument("--skip-unreadable", action="store_true", help="leave out files of a folder that cannot be read")


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: an image failed; 2: bad input, one line on stderr, nothing written; 130: stopped by Ctrl-C."""
    return run("solve", parser(), argv, act)


def act(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    if args.set and "help" in args.set:
        from pag_inverse.restoration.run import list_options

        return list_options()
    if args.list_layers:
        used = ("task", "solver", "prior", "weights_dir", "download", "prior_config", "prediction", "device")
        check_used(args, parser(), "list_layers", used)
        args.task = args.task or TASKS[0]
    if args.task is None:
        raise ValueError("--task is needed; --help lists the tasks and the flags")
    request = request_of(args)
    from pag_inverse.restoration import run as command  # torch comes in here, after the arguments were found good

    if args.list_layers:
        return command.list_layers(request)
    return command.solve_run(request, args.input, args.output, args.overwrite, args.dry_run)


def request_of(args: argparse.Namespace) -> SolveRequest:
    """The arguments as a validated request."""
    return validated(SolveRequest, solve_settings(args))


if __name__ == "__main__":
    sys.exit(main())
