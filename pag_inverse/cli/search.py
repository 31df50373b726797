"""Search the row of a prior: try every setting of a grid of step sizes and guidance on training pictures.

Each setting restores the same measurements; one line of JSON each, and a setting that is there already is not tried
again. Use training pictures only: a row found on test pictures flatters itself.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pag_inverse.cli.arguments import Parser, fail
from pag_inverse.settings.files import EMBEDDED_PRIORS, PRIORS, SOLVERS, TASKS, Hyperparameters, SolverOptions, load_task
from pag_inverse.settings.tables import PRECISIONS, SPACINGS, STEP_LIMITS, STEP_SCALINGS, VARIANCES

EXAMPLES = """examples:
  python scripts/search.py --task gaussian_deblur --solver dps --data photographs --output runs/search --eta 5 10 20
  python scripts/search.py --task motion_deblur --solver psld --data photographs --output runs/search \\
      --eta 4 8 --gamma-ratio 0.1 0.3 --pag 0 2 5 --layers mid_block.attentions.0 --steps 60
"""


def parser() -> Parser:
    p = Parser("search", __doc__, EXAMPLES)
    p.add_argument("--task", choices=TASKS, required=True)
    p.add_argument("--solver", choices=SOLVERS, required=True)
    p.add_argument("--prior", help=f"{', '.join(PRIORS)}, or a path; by default pixel (dps) or latent (psld)")
    p.add_argument("--data", type=Path, required=True, help="folder of training pictures, searched below it too")
    p.add_argument("--output", type=Path, required=True, help="folder that gathers the lines")
    p.add_argument("--pictures", type=int, default=4, help="how many, spread evenly over the folder")
    p.add_argument("--samples", type=int, default=2, help="posterior samples of each measurement")
    p.add_argument("--size", type=int, default=128, help="side cut out of 256; step sizes are given for 256")
    p.add_argument("--eta", type=float, nargs="+", required=True)
    p.add_argument("--gamma-ratio", type=float, nargs="+", default=[0.1], help="gamma over eta (PSLD)")
    p.add_argument("--pag", type=float, nargs="+", default=[0.0], metavar="S")
    p.add_argument("--layers", nargs="+", default=[], metavar="LAYER,...", help="each a set of layers to perturb")
    p.add_argument("--steps", type=int, nargs="+", default=[100])
    p.add_argument("--spacing", choices=SPACINGS, nargs="+", default=["quadratic"], help="of the timesteps")
    p.add_argument(
        "--step-scaling", choices=STEP_SCALINGS, default="sqrt_abar", help="of eta and gamma along the chain"
    )
    p.add_argument("--noise-floor", type=float, default=0.95, help="the data terms rest below so many sigma sqrt(m)")
    p.add_argument("--step-limit", choices=STEP_LIMITS, nargs="+", default=["none"], help="of data steps")
    p.add_argument("--variance", choices=VARIANCES, nargs="+", default=["fixed_small"], help="of a DDPM step (DPS)")
    p.add_argument("--encode-interval", type=int, nargs="+", default=[1], help="each k-th step has PSLD's gluing term")
    p.add_argument("--ddim-eta", type=float, nargs="+", default=[1.0], help="noise of a DDIM step (PSLD)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the networks")
    p.add_argument("--device", default="cpu")
    return p


def main(argv: list[str] | None = None) -> int:
    """Try what is not there yet, then print the table."""
    args = parser().parse_args(argv)
    try:
        rows = list(grid(args))
        search(args, rows)
    except (ValueError, OSError) as error:
        return fail("search", error)
    except KeyboardInterrupt:
        print("search: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def grid(args: argparse.Namespace) -> Iterator[Hyperparameters]:
    """Every setting once; layers and gamma do not multiply those that have none."""
    if any(args.pag) and not args.layers:
        raise ValueError("--layers is needed with --pag above 0")
    for name in ("pictures", "samples", "size"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    psld = args.solver == "psld"
    ratios, ddim_etas, intervals = (
        (args.gamma_ratio, args.ddim_eta, args.encode_interval) if psld else ([None], [0.0], [1])
    )
    variances = ["fixed_small"] if psld else args.variance
    options = [
        SolverOptions(
            spacing=spacing,
            ddim_eta=ddim_eta,
            step_scaling=args.step_scaling,
            noise_floor=args.noise_floor,
            step_limit=limit,
            encode_interval=interval,
            variance=variance,
        )
        for spacing, ddim_eta, limit, interval, variance in itertools.product(
            args.spacing, ddim_etas, args.step_limit, intervals, variances
        )
    ]
    for steps, option, eta, ratio, s in itertools.product(args.steps, options, args.eta, ratios, args.pag):
        for layers in args.layers if s > 0 else [""]:
            named = tuple(layers.split(",")) if layers else ()
            gamma = None if ratio is None else eta * ratio
            yield Hyperparameters(eta, gamma, s, named, steps, option)


def search(args: argparse.Namespace, rows: list[Hyperparameters]) -> None:
    from tqdm import tqdm

    from pag_inverse.experiments import trials
    from pag_inverse.storage.json_lines import append_line, read_lines
    from pag_inverse.priors import load_prior
    from pag_inverse.training.trainer import split_held_out

    training, _ = split_held_out(args.data)
    files = training[:: max(1, len(training) // args.pictures)][: args.pictures]
    task = load_task(args.task, None, args.solver, image_size=trials.SIDE, pag=False)
    prior = load_prior(args.prior or EMBEDDED_PRIORS[args.solver], device=args.device, precision=args.precision)
    truths = trials.read_truths(files, args.size).to(args.device)
    problem = trials.make_problem(task, [f.stem for f in files], truths, args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    log = args.output / "search.jsonl"
    done, _ = read_lines(log)
    print(f"{len(rows)} settings on {', '.join(problem.names)}", file=sys.stderr)
    for row in rows:
        key = json.loads(json.dumps({**describe(args), **asdict(row)}))  # as it is read again
        if any(entry["setting"] == key for entry in done):
            continue
        with tqdm(total=row.steps * args.samples, unit="step", leave=False) as bar:
            scaled = row.at_side(args.size)
            found = trials.restore_samples(problem, prior, args.solver, scaled, args.samples, bar.update)
        entry = {"setting": key, **measure(problem, found)}
        done.append(entry)
        append_line(log, entry)
    enlarged = trials.mean(trials.scores(problem, problem.operator.enlarge(problem.y).clamp(-1, 1))["psnr"])
    print(table([e for e in done if all(e["setting"][k] == v for k, v in describe(args).items())], enlarged))


def describe(args: argparse.Namespace) -> dict[str, Any]:
    names = ("task", "solver", "prior", "pictures", "samples", "size", "seed", "precision")
    return {**{n: getattr(args, n) for n in names}, "data": str(args.data)}


def measure(problem: Any, found: Any) -> dict[str, float]:
    """What is compared: single samples and the mean of all, averaged over the pictures."""
    from pag_inverse.experiments import trials

    singles = [trials.scores(problem, x) for x in found.samples]
    together = trials.scores(problem, found.samples.mean(dim=0))
    one = {name: trials.mean([v for s in singles for v in s[name]]) for name in ("psnr", "ssim", "sharpness")}
    return {
        "mean_psnr": trials.mean(together["psnr"]),
        "mean_ssim": trials.mean(together["ssim"]),
        **one,
        "residual": float(found.residuals.mean()),
        "seconds": round(found.seconds, 2),
    }


def table(entries: list[dict[str, Any]], measurement: float) -> str:
    """Best mean first, beside what was measured."""
    lines = [
        "  eta  gamma    s steps spacing   ddim_eta limit encode variance     mean dB  one dB  sharpness  residual"
        "    s/im  layers"
    ]
    for e in sorted(entries, key=lambda e: -e["mean_psnr"]):
        r, o = e["setting"], e["setting"]["options"]
        lines.append(
            f"{r['eta']:5g} {r['gamma'] or 0:6.3g} {r['s']:4g} {r['steps']:5d} {o['spacing']:9s} {o['ddim_eta']:8g} "
            f"{o['step_limit']:5s} {o['encode_interval']:6d} {o['variance']:12s} "
            f"{e['mean_psnr']:8.2f} {e['psnr']:7.2f} {e['sharpness']:10.2f} {e['residual']:9.2f} {e['seconds']:7.1f}  "
            f"{' '.join(r['layers'])}"
        )
    return "\n".join([*lines, f"measurement, enlarged: {measurement:.2f} dB"])


if __name__ == "__main__":
    sys.exit(main())
