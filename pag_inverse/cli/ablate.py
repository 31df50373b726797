"""Measure the price of every approximation: what it saves, and what it costs in quality, on the same measurements.

One line of JSON for each setting and picture; the same command goes on where it was stopped, measures anew what a
prior with other weights has not been measured with, and prints the table. Differences are paired by picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pag_inverse.cli.arguments import Parser, fail
from pag_inverse.settings.files import EMBEDDED_PRIORS, SOLVERS, TASKS, Hyperparameters, SolverOptions, load_task
from pag_inverse.settings.tables import PRECISIONS, STEP_LIMITS
from pag_inverse.settings.reader import check_number

if TYPE_CHECKING:
    from pag_inverse.experiments.trials import Problem
    from pag_inverse.priors import Prior

OWN, REFERENCE = "the row as it is", "1000 steps"
EXAMPLES = """examples:
  python scripts/prices.py --data photographs --output runs/prices
  python scripts/prices.py --data photographs --output runs/prices --only fast 1000 --pictures 16
  python scripts/prices.py --data photographs --output runs/prices --table-only
"""


@dataclass(frozen=True)
class Setting:
    """An approximation of a row, and the name of the setting that its quality is held against."""

    name: str
    row: Hyperparameters
    against: str


def parser() -> Parser:
    p = Parser("prices", __doc__, EXAMPLES)
    p.add_argument("--data", type=Path, required=True, help="folder of pictures, searched below it too")
    p.add_argument("--output", type=Path, required=True, help="folder that gathers the lines")
    p.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    p.add_argument("--dps-task", choices=TASKS, default="gaussian_deblur")
    p.add_argument("--psld-task", choices=TASKS, default="motion_deblur")
    p.add_argument("--reference-scale", type=float, default=1.0, help="step sizes of 1000 steps over the rule's")
    p.add_argument("--only", nargs="+", metavar="WORD", help="settings whose name has one of these words in it")
    p.add_argument("--pictures", type=int, default=8, help="how many, spread evenly over the folder")
    p.add_argument("--first", type=int, help="only so many of them")
    p.add_argument("--size", type=int, default=128, help="side cut out of 256; step sizes are brought to it")
    p.add_argument("--batch-size", type=int, default=2)
    p.add_argument("--precision", choices=PRECISIONS, default="bfloat16", help="of the networks")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument("--table-only", action="store_true", help="print the table of what is there")
    return p


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing, then print the table."""
    args = parser().parse_args(argv)
    try:
        for name in ("pictures", "first", "size", "batch_size"):
            value = getattr(args, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        check_number("--reference-scale", args.reference_scale)
        for solver in args.solvers:
            print(measure(args, solver))
    except (ValueError, OSError) as error:
        return fail("prices", error)
    except KeyboardInterrupt:
        print("prices: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def settings(own: Hyperparameters, solver: str, prior: Prior, scale: float = 1.0) -> list[Setting]:
    """Everything that has a price.

    Numbers of steps and presets of a row of 1000 steps, made of `own` by the rule and with `scale` times its step
    sizes; and what leaves out a part of the steps' work, beside `own` itself.
    """
    from pag_inverse.solvers.step_sizes import at_speed, rescaled
    from pag_inverse.settings.presets import preset

    def variant(**options: Any) -> Hyperparameters:
        return replace(own, options=replace(own.options, **options))

    long = rescaled(replace(own, steps=1000), own, solver, prior)
    long = replace(long, eta=scale * long.eta, gamma=long.gamma and scale * long.gamma)
    chains = {REFERENCE: long}
    chains |= {f"--speed {speed}": at_speed(long, speed, solver, prior) for speed in ("fast", "draft")}
    for steps in (60, 30):
        short = replace(preset(long, "fast", solver), steps=steps)
        chains[f"--speed fast --steps {steps}"] = rescaled(short, long, solver, prior)
    parts = {f"--step-limit {limit}": variant(step_limit=limit) for limit in STEP_LIMITS}
    for part in ("late", "early"):
        name = f"--gradient-interval 2 --gradient-part {part}"
        parts[name] = variant(gradient_interval=2, gradient_part=part)
    for low, high in ((0.0, 0.5), (0.1, 1.0), (0.1, 0.5)):
        parts[f"--pag-interval {low:g} {high:g}"] = variant(pag_interval=(low, high))
    for k in (1, 2, 4) if solver == "psld" else ():
        parts[f"--encode-interval {k}"] = variant(encode_interval=k)
    return [
        *(Setting(name, row, REFERENCE) for name, row in chains.items()),
        Setting(OWN, own, OWN),
        *(Setting(name, row, OWN) for name, row in parts.items() if row != own),
    ]


def measure(args: argparse.Namespace, solver: str) -> str:
    """Restore what has no line yet, and the table of one solver."""
    from pag_inverse.experiments import trials
    from pag_inverse.restoration.recipe import weights_hash
    from pag_inverse.storage.json_lines import read_lines
    from pag_inverse.priors import load_prior
    from pag_inverse.training.trainer import split_held_out

    task = load_task(getattr(args, f"{solver}_task"), "natural", solver, image_size=trials.SIDE, pag=True)
    assert task.hyperparameters is not None
    prior = load_prior(EMBEDDED_PRIORS[solver], device=args.device, precision=args.precision)
    files, _ = split_held_out(args.data)
    files = files[:: max(1, len(files) // args.pictures)][: args.pictures][: args.first]
    problem = trials.make_problem(
        task, [f.stem for f in files], trials.read_truths(files, args.size).to(args.device), args.seed
    )
    what = {n: getattr(args, n) for n in ("size", "precision", "seed", "device")}
    what |= {"task": task.name, "solver": solver, "prior_sha256": weights_hash(prior)}
    args.output.mkdir(parents=True, exist_ok=True)
    log, found = args.output / "prices.jsonl", settings(task.hyperparameters, solver, prior, args.reference_scale)
    for setting in found if not args.table_only else ():
        if args.only is None or any(word in setting.name for word in args.only):
            restore(args, log, {**what, "row": key_of(setting.row)}, setting, problem, prior)
    lines, _ = read_lines(log)
    known = {s.name: of_setting(lines, {**what, "row": key_of(s.row)}, problem.names) for s in found}
    return f"{task.name}, {solver}, {args.size} px\n{table(found, known)}"


def key_of(row: Hyperparameters) -> dict[str, Any]:
    """A row for JSON, with the options that are not off: further ones do not make earlier lines another setting."""
    off, options = asdict(SolverOptions()), asdict(row.options)
    own = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items() if v != off[k]}
    sizes = {n: v and round(v, 6) for n, v in (("eta", row.eta), ("gamma", row.gamma))}
    return {**sizes, "s": row.s, "layers": list(row.layers), "steps": row.steps, **own}


def of_setting(
    lines: list[dict[str, Any]], key: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    return {e["picture"]: e for e in lines if e["key"] == key and e["picture"] in names}


def restore(
    args: argparse.Namespace, log: Path, key: dict[str, Any], setting: Setting, problem: Problem, prior: Prior
) -> None:
    """One sample of every picture that has no line of this setting, batch by batch."""
    from tqdm import tqdm

    from pag_inverse.experiments import trials
    from pag_inverse.storage.json_lines import append_line, read_lines

    done = of_setting(read_lines(log)[0], key, problem.names)
    left = [b for b, name in enumerate(problem.names) if name not in done]
    for numbers in batches(left, args.batch_size):
        part, counted = problem.select(numbers), Counted(prior)
        row = setting.row.at_side(args.size)
        with tqdm(total=row.steps, unit="step", leave=False, desc=setting.name) as bar:
            timed = trials.restore_samples(part, counted, key["solver"], row, 1, bar.update)  # type: ignore[arg-type]
        scores = trials.scores(part, timed.samples[0].float())
        for b, name in enumerate(part.names):
            entry = {n: values[b] for n, values in scores.items()}
            entry |= {"residual": float(timed.residuals[0, b]), "seconds": timed.seconds, "cpu": timed.cpu_seconds}
            append_line(log, {"key": key, "picture": name, **entry, "passes": counted.passes})


def batches(numbers: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]


class Counted:
    """A prior that counts the passes of its networks, backward ones too."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.passes = prior, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.prior, name)
        networks = ("predict", "predict_perturbed", *(("decode", "encode") if hasattr(self.prior, "vae") else ()))
        if name not in networks:
            return found

        def counted(*args: Any) -> Any:
            import torch

            backward = torch.is_grad_enabled() and name != "predict_perturbed"
            self.passes += 2 if backward else 1
            return found(*args)

        return counted


def table(found: list[Setting], known: Mapping[str, dict[str, dict[str, Any]]]) -> str:
    """One line a setting: what it saves against its comparison, and the paired differences with their 95 % interval."""
    from pag_inverse.metrics.statistics import estimate, paired_difference

    lines = [
        "| setting | against | n | passes | times faster | PSNR, dB | SSIM | dPSNR, dB | dSSIM |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in found:
        mine, other = known[s.name], known[s.against]
        if not mine:
            continue
        common = sorted(set(mine) & set(other))
        means = [estimate([e[name] for e in mine.values()]).mean for name in ("psnr", "ssim")]
        passes = next(iter(mine.values()))["passes"]
        cells = [s.name, s.against, str(len(common)), str(passes)]
        if common and s.name != s.against:
            times = [sum(e[i]["cpu"] for i in common) for e in (other, mine)]
            pairs = {n: paired_difference([mine[i][n] for i in common], [other[i][n] for i in common]) for n in SCORES}
            cells += [f"{times[0] / times[1]:.2f}", f"{means[0]:.2f}", f"{means[1]:.3f}"]
            cells += [f"{d.mean:+.{p}f} ± {d.half:.{p}f}" for d, p in zip(pairs.values(), (2, 3), strict=True)]
        else:
            cells += ["", f"{means[0]:.2f}", f"{means[1]:.3f}", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


SCORES = ("psnr", "ssim")


if __name__ == "__main__":
    sys.exit(main())
