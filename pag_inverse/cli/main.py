"""`pag-inverse COMMAND`: the same commands as the scripts of the repository."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from pag_inverse.runtime.terminal import forgiving_streams

COMMANDS = {
    "solve": "restore pictures, or a measurement of your own",
    "evaluate": "restore a data set and report on it",
    "sample": "sample pictures of a prior, without a measurement",
    "search": "search step sizes and PAG scales on training pictures",
    "ablate": "measure what each option of a row costs and gains",
    "compare": "compare the priors with classical restoration",
    "calibrate": "hold the samples of solvers against known posteriors",
    "benchmark": "measure time and memory of a step",
    "pipeline": "run ControlNet, inpainting or the x4 upscaler of Stable Diffusion under PAG",
    "train": "train a small prior on a folder of pictures",
    "app": "serve a page to try restorations in a browser",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; without one, or with --help, list them."""
    with forgiving_streams():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print("usage: pag-inverse COMMAND ...; pag-inverse COMMAND --help tells the flags\n")
        print("\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items()))
        return 0 if args else 2
    if args[0] == "--version":
        from pag_inverse import __version__

        print(f"pag_inverse {__version__}")
        return 0
    if args[0] not in COMMANDS:
        print(f"pag-inverse: unknown command {args[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    found: int = import_module(f"pag_inverse.cli.{args[0]}").main(args[1:])
    return found


if __name__ == "__main__":
    sys.exit(main())
