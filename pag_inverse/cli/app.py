"""Serve a page on which pictures are degraded and restored in a browser; it runs offline on the embedded priors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pag_inverse.cli.arguments import Parser, run
from pag_inverse.settings import validated


def parser() -> Parser:
    """The flags of app."""
    p = Parser("app", __doc__)
    p.add_argument("--host", default="127.0.0.1", help="address to listen on; by default seen from this machine alone")
    p.add_argument("--port", type=int, default=7860, help="0 takes a free one")
    p.add_argument("--max-side", type=int, default=1024, help="the most pixels a side of what is restored whole")
    p.add_argument("--max-upload", type=float, default=20.0, metavar="MB", help="the largest file that is taken")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    return run("app", parser(), argv, act)


def act(args: argparse.Namespace) -> int:
    """Serve as the arguments say."""
    from pag_inverse.app.server import AppRequest, serve

    return serve(validated(AppRequest, vars(args)))


if __name__ == "__main__":
    sys.exit(main())
