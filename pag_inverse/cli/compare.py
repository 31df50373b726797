"""Hold the embedded priors against classical restoration: every task and solver, with PAG and without.

Beside them what bounds them: the autoencoder's round trip, and one step of the pixel prior as a denoiser. Classical
methods are tuned on training pictures first. Every restoration is saved when it is done, and the same command
goes on where it was stopped; after a prior or a row has changed, what was made with it is made again. The page is
written anew each time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pag_inverse.cli.arguments import Parser, fail
from pag_inverse.settings.files import EMBEDDED_PRIORS, SOLVERS, TASKS, Hyperparameters, load_task
from pag_inverse.settings.tables import PRECISIONS

if TYPE_CHECKING:
    from torch import Tensor

    from pag_inverse.storage.ledger import Ledger
    from pag_inverse.experiments.trials import Problem
    from pag_inverse.metrics.perceptual import Lpips
    from pag_inverse.priors import Prior

EXAMPLES = """examples:
  python scripts/evidence.py --data test_pictures --training training_pictures --output runs/evidence
  python scripts/evidence.py --data faces --training photographs --output runs/faces --samples 4 --tasks gaussian_deblur
"""


@dataclass(frozen=True)
class Cell:
    """One restoration: of which measurement, by what, and which of its samples."""

    task: str
    method: str
    picture: str
    sample: int


def parser() -> Parser:
    p = Parser("evidence", __doc__, EXAMPLES)
    p.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE|DIR", help="pictures to restore")
    p.add_argument("--training", type=Path, required=True, help="folder of pictures to tune classical methods on")
    p.add_argument("--output", type=Path, required=True)
    p.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    p.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    p.add_argument("--samples", type=int, default=16, help="of the solvers in --many")
    p.add_argument("--many", nargs="*", default=["dps_pag"], help="methods with several samples; others have one")
    p.add_argument(
        "--sigmas", type=float, nargs="*", default=[0.1, 0.2, 0.5, 1.0, 2.0], help="of the denoising, on [-1, 1]"
    )
    p.add_argument("--tuning-pictures", type=int, default=6)
    p.add_argument("--size", type=int, default=256, help="a smaller side is cut out of 256")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the networks")
    p.add_argument("--device", default="cpu")
    p.add_argument("--lpips-net", choices=("vgg", "alex"), default="vgg")
    p.add_argument(
        "--lpips-weights", type=Path, help="torchvision's weights of it; by default where torch.hub has them"
    )
    p.add_argument("--page-only", action="store_true", help="write the page of what is there")
    return p


def main(argv: list[str] | None = None) -> int:
    """Restore what is missing, cheapest first, then write the page."""
    args = parser().parse_args(argv)
    try:
        gather(args)
    except (ValueError, OSError) as error:
        return fail("evidence", error)
    except KeyboardInterrupt:
        print("evidence: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def methods(solvers: list[str]) -> list[str]:
    return [f"{solver}{suffix}" for solver in solvers for suffix in ("_pag", "")]


def gather(args: argparse.Namespace) -> None:
    from pag_inverse.experiments.comparison_page import write_page
    from pag_inverse.storage.ledger import Ledger
    from pag_inverse.restoration.recipe import weights_hash
    from pag_inverse.priors import load_prior

    if args.samples < 1:
        raise ValueError(f"--samples is {args.samples}; it must be at least 1")
    if any(not sigma > 0 for sigma in args.sigmas):
        raise ValueError(f"--sigmas {' '.join(map(str, args.sigmas))}; each must be above 0")
    unknown = sorted(set(args.many) - set(methods(list(SOLVERS))))
    if unknown:
        raise ValueError(f"--many {unknown[0]}; there are {', '.join(methods(list(SOLVERS)))}")
    files = pictures(args.data)
    priors = {s: load_prior(EMBEDDED_PRIORS[s], device=args.device, precision=args.precision) for s in SOLVERS}
    what: dict[str, Any] = {name: getattr(args, name) for name in ("size", "seed", "precision")}
    lpips = lpips_of(args)
    hashes = {solver: weights_hash(prior) for solver, prior in priors.items()}
    ledger = Ledger(args.output, {**what, "pictures": [f.stem for f in files]}, partial(source, hashes))
    if not args.page_only:
        problems = {task: build_problem(args, task, files) for task in args.tasks}
        for task, problem in problems.items():
            restore_classically(args, task, problem, ledger)
            if "psld" in args.solvers:
                go_round(problem, task, priors["psld"], ledger)
        denoise(args, files, priors["dps"], ledger)
        restore_with_priors(args, problems, priors, ledger)
    print(f"written to {write_page(ledger, *lpips)}")


def source(weights: dict[str, str], task: str, method: str) -> str:
    """A hash of the prior and the row that a method is made of; empty for what needs neither."""
    from pag_inverse.storage.records import sha256

    ceilings = {"one_step": "dps", "autoencoder": "psld"}
    if method in ceilings:
        return weights[ceilings[method]][:12]
    if method not in methods(list(SOLVERS)):
        return ""
    row = json.dumps(asdict(row_of(task, method)), sort_keys=True)
    return sha256([weights[method.split("_")[0]].encode(), row.encode()])[:12]


def lpips_of(args: argparse.Namespace) -> tuple[Lpips | None, str]:
    """The distance, or why there is none."""
    from pag_inverse.metrics.perceptual import Lpips, Unavailable

    try:
        return Lpips(args.lpips_net, args.lpips_weights, args.device), f"LPIPS: {args.lpips_net}, version 0.1."
    except Unavailable as error:
        if args.lpips_weights:
            raise ValueError(str(error)) from error
        return None, f"LPIPS was not measured: {error}."


def pictures(paths: list[Path]) -> list[Path]:
    from pag_inverse.data.images import list_images

    files = [f for path in paths for f in (list_images(path) if path.is_dir() else [path])]
    names = [f.stem for f in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two pictures are named {twice[0]}")
    return files


def build_problem(args: argparse.Namespace, task: str, files: list[Path]) -> Problem:
    from pag_inverse.experiments import trials

    settings = load_task(task, None, "dps", image_size=trials.SIDE, pag=False)
    truths = trials.read_truths(files, args.size).to(args.device)
    return trials.make_problem(settings, [f.stem for f in files], truths, args.seed)


def restore_classically(args: argparse.Namespace, task: str, problem: Problem, ledger: Ledger) -> None:
    """Tune each classical method of the task on training pictures, once, then apply it."""
    from pag_inverse.experiments import baselines
    from pag_inverse.training.trainer import split_held_out

    missing = [name for name in baselines.of(task) if f"{task}.{name}" not in ledger.tuned]
    if missing:
        training, _ = split_held_out(args.training)
        every = max(1, len(training) // args.tuning_pictures)
        example = build_problem(args, task, training[::every][: args.tuning_pictures])
        for name in missing:
            ledger.tune(f"{task}.{name}", baselines.tune(task, name, example))
    for b, picture in enumerate(problem.names):
        if not ledger.has_truth(picture):
            ledger.save_truth(picture, problem.truths[b])
        alone = problem.single(b)
        for name in baselines.of(task):
            cell = Cell(task, name, picture, 0)
            if cell not in ledger:
                image = baselines.apply(name, alone, ledger.tuned[f"{task}.{name}"])
                ledger.add(cell, image[0], problem.truths[b], float(alone.residual(image)))


def go_round(problem: Problem, task: str, prior: Prior, ledger: Ledger) -> None:
    """The autoencoder's round trip of each truth, and the residual that its error alone implies."""
    from pag_inverse.experiments import bounds as ceilings

    for b, picture in enumerate(problem.names):
        cell = Cell(task, "autoencoder", picture, 0)
        if cell not in ledger:
            alone = problem.single(b)
            image = ceilings.round_trip(prior, alone.truths)
            ledger.add(cell, image[0], problem.truths[b], float(alone.residual(image)))


def denoise(args: argparse.Namespace, files: list[Path], prior: Prior, ledger: Ledger) -> None:
    """One step of the pixel prior beside total variation at its best, at every sigma."""
    from pag_inverse.experiments import bounds as ceilings
    from pag_inverse.experiments import trials

    truths = trials.read_truths(files, args.size).to(args.device)
    for sigma, (b, file) in itertools.product(args.sigmas, enumerate(files)):
        truth = truths[b : b + 1]
        y = ceilings.noisy(truth, sigma, args.seed, file.stem)
        found: dict[str, Callable[[], Tensor]] = {
            "measurement": partial(y.clamp, -1, 1),
            "total_variation": partial(ceilings.oracle_total_variation, y, truth, sigma),
            "one_step": partial(ceilings.one_step, prior, y, sigma),
        }
        for method, make in found.items():
            cell = Cell(f"denoising_{sigma:g}", method, file.stem, 0)
            if cell not in ledger:
                image = make()
                ledger.add(cell, image[0], truth[0], float((y - image).square().mean().sqrt() / sigma))


def restore_with_priors(
    args: argparse.Namespace, problems: dict[str, Problem], priors: dict[str, Prior], ledger: Ledger
) -> None:
    """One sample of every picture first, then the further ones: a page is of use early."""
    from tqdm import tqdm

    from pag_inverse.experiments import trials

    left = [cell for cell in cells(args, problems) if cell not in ledger]
    steps = {cell: row_of(cell.task, cell.method).steps for cell in left}
    with tqdm(total=sum(steps.values()), unit="step") as bar:
        for cell in left:
            problem = problems[cell.task]
            b = problem.names.index(cell.picture)
            solver, row = cell.method.split("_")[0], row_of(cell.task, cell.method).at_side(args.size)
            alone = problem.single(b)
            found = trials.restore_samples(alone, priors[solver], solver, row, 1, bar.update, first=cell.sample)
            ledger.add(cell, found.samples[0, 0], problem.truths[b], float(found.residuals), found.seconds)


def cells(args: argparse.Namespace, problems: dict[str, Problem]) -> Iterator[Cell]:
    for sample in range(args.samples):
        for method in methods(args.solvers):
            if sample == 0 or method in args.many:
                for task, problem in problems.items():
                    yield from (Cell(task, method, picture, sample) for picture in problem.names)


def row_of(task: str, method: str) -> Hyperparameters:
    solver, _, suffix = method.partition("_")
    row: Any = load_task(task, "natural", solver, image_size=256, pag=suffix == "pag").hyperparameters
    return row


if __name__ == "__main__":
    sys.exit(main())
