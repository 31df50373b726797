"""What the command lines share: a parser whose errors are one line."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser that shows its epilog as it is written, takes no abbreviations and errs in one line."""

    def __init__(self, prog: str, description: str | None, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def batch_size(text: str) -> int | None:
    """A number of images; None for `auto`."""
    return None if text == "auto" else int(text)


def fail(prog: str, error: Exception) -> int:
    """Tell an error in one line on stderr; exit status 2."""
    print(f"{prog}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
