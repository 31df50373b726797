"""The commands of the training page parse, and every flag that it names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pag_inverse.cli import train
from pag_inverse.cli.arguments import Parser

PAGE = (Path(__file__).parents[2] / "pag_inverse" / "training" / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def flags(parser: Parser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


@pytest.mark.parametrize("command", [line for line in COMMANDS if "train_prior.py" in line])
def test_a_command_parses(command: str) -> None:
    words = shlex.split(command)
    args = train.parser().parse_args(words[words.index("scripts/train_prior.py") + 1 :])
    assert args.kind in train.DEFAULT_CROPS and args.data and args.output


def test_every_flag_exists() -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", "\n".join(line for line in PAGE.splitlines() if line not in COMMANDS)))
    assert named and named <= flags(train.parser())
