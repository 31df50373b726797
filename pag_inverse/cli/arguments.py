"""What the command lines share: a parser whose errors are one line, and flags that several commands have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pag_inverse.runtime.failures import is_machine_error, is_out_of_memory
from pag_inverse.runtime.terminal import forgiving_streams
from pag_inverse.settings import (
    EXPLAIN_FORMATS,
    FURTHER_OPTIONS,
    PRECISIONS,
    PREDICTIONS,
    PRIORS,
    SPEEDS,
    TASKS,
    SolveRequest,
)
from pag_inverse.settings.reader import parse_value

ANEW = ("app", "benchmark", "calibrate")  # commands that do not go on where they were stopped


class Parser(argparse.ArgumentParser):
    """An argument parser that shows its epilog as it is written, takes no abbreviations and errs in one line."""

    def __init__(self, prog: str, description: str | None, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def run(prog: str, parser: Parser, argv: Sequence[str] | None, act: Callable[[argparse.Namespace], int]) -> int:
    """Parse and act; the exit status.

    0: done. 1: something failed, or the machine did: a full disk, another process. 2: bad input, one line on stderr.
    130: stopped by Ctrl-C.
    """
    with forgiving_streams():
        args = parser.parse_args(argv)
        try:
            return act(args)
        except (ValueError, OSError) as error:
            print(f"{prog}: {' '.join(str(error).split())}", file=sys.stderr)
            return 1 if isinstance(error, OSError) and is_machine_error(error) else 2
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            print(f"{prog}: the memory of this machine is too small; take a smaller size or batch", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            kept = "" if prog in ANEW else "what is finished is kept, and "
            print(f"{prog}: stopped; {kept}the same command {'goes on' if kept else 'starts anew'}", file=sys.stderr)
            return 130


def path(text: str) -> Path:
    """A path that is given; an empty one would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def check_used(args: argparse.Namespace, parser: Parser, mode: str, used: Sequence[str]) -> None:
    """ValueError where a flag is given that does nothing beside the flag `mode`."""
    for name, value in vars(args).items():
        if name != mode and name not in used and value != parser.get_default(name):
            flags = [f"--{flag.replace('_', '-')}" for flag in (name, mode)]
            raise ValueError(f"{flags[0]} does nothing with {flags[1]}; leave one of them out")


def batch_size(text: str) -> int | None:
    """A number of images; None for `auto`."""
    return None if text == "auto" else int(text)


class Explain(argparse.Action):
    """`--explain [FORMAT ...]`: the formats, png where none is named."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, tuple(values) or EXPLAIN_FORMATS[:1])


class SetOption(argparse.Action):
    """`--set KEY=VALUE ...`: collects values, read as YAML reads them; `help` alone lists the options."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        found = dict(getattr(namespace, self.dest) or {})
        for text in values:
            key, equals, value = text.partition("=")
            if text != "help" and not (equals and key):
                parser.error(f"--set {text!r}; it must read KEY=VALUE, or help")
            if key in found:
                parser.error(f"--set {key} is given twice")
            found[key] = parse_value(value)
        setattr(namespace, self.dest, found)


def solve_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that `SolveRequest` has, by its names; --set holds options of the solver and of every run."""
    names = set(vars(args)) & set(SolveRequest.__dataclass_fields__)
    given = {name: getattr(args, name) for name in names}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    options = dict(args.set or {})
    for name in ("eta", "gamma"):
        if getattr(args, name, None) is not None:
            if name in options:
                raise ValueError(f"--{name} and --set {name}=... are both given; leave one of them out")
            options[name] = getattr(args, name)
    further = {name: options.pop(name) for name in FURTHER_OPTIONS if name in options}
    return {**given, **further, "options": options}


def add_guidance(p: argparse._ArgumentGroup) -> None:
    """What replaces the row of the tables."""
    p.add_argument("--pag", type=float, metavar="S", help="scale s of PAG; 0 takes the row without PAG")
    p.add_argument("--layers", nargs="+", metavar="LAYER", help="self-attention layers to perturb")
    p.add_argument("--perturbation", metavar="NAME[:KEY=VALUE,...]", help="of PAG's layers; --set help lists them")
    p.add_argument("--cfg", type=float, default=1.0, help="classifier-free guidance with a prompt; 1 is off")
    p.add_argument("--steps", type=int, help="1 to 1000; step sizes stay as they are")
    p.add_argument("--speed", choices=SPEEDS, default="exact", help="fast, draft: fewer steps, with options for them")
    p.add_argument("--set", action=SetOption, nargs="+", metavar="KEY=VALUE", help="other options; --set help lists")


def add_machine(p: argparse._ArgumentGroup) -> None:
    """Where the networks run, and how many images at once."""
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    p.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the networks")
    p.add_argument("--low-memory", action="store_true", help="compute activations again in the backward pass")
    p.add_argument("--tile", type=int, help="side of the prior's tiles, 0 = none; by default large pictures have them")
    p.add_argument("--overlap", type=int, help="of tiles, in pixels; by default a quarter")
    p.add_argument("--batch-size", type=batch_size, default=1, metavar="N|auto", help="images at once")


def add_prior(p: argparse._ArgumentGroup, default: str = "the solver's embedded one") -> None:
    """The prior and its files."""
    p.add_argument("--prior", help=f"{', '.join(PRIORS)}, or a path; by default {default}")
    p.add_argument("--weights-dir", type=path, metavar="DIR", help="published weights (or PAG_INVERSE_WEIGHTS)")
    p.add_argument("--download", action="store_true", help="fetch missing published weights from the hub")
    p.add_argument("--prior-config", type=path, metavar="FILE", help="arguments or YAML that came with a checkpoint")
    p.add_argument("--prediction", choices=PREDICTIONS, help="what the prior predicts, where its files do not tell")


def add_metrics(p: argparse._ArgumentGroup) -> None:
    """The networks of metrics."""
    p.add_argument("--lpips-net", choices=("vgg", "alex"), default="vgg")
    p.add_argument("--lpips-weights", type=path, metavar="FILE", help="torchvision's; by default TORCH_HOME's")
    p.add_argument("--inception-weights", type=path, metavar="FILE", help="torch-fidelity's, for FID and its kin")


def add_run(p: argparse._ArgumentGroup) -> None:
    """What every run has."""
    p.add_argument("--sigma", type=float, help="noise on [-1, 1]; by default the task's; of a measurement, estimated")
    p.add_argument("--samples", type=int, default=1, help="posterior samples of each measurement")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--size", type=int, help="side of the square picture; by default the prior's")
    p.add_argument("--output", type=path, metavar="DIR")
    p.add_argument("--overwrite", action="store_true", help="replace a folder that holds another run")


def add_explain(p: argparse._ArgumentGroup) -> None:
    """The pictures that explain guidance."""
    formats = "|".join(EXPLAIN_FORMATS)
    told = "show what guidance does: a strip (png, the default, or pdf) or an animation (gif, webp) of each picture"
    p.add_argument("--explain", action=Explain, nargs="*", default=(), metavar=formats, help=told)


def task_help() -> str:
    """The tasks by name."""
    return f"{', '.join(TASKS)}, or a .yaml file written like theirs"
