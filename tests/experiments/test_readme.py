"""The README: every command parses, every file that it names is there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

import pag_inverse.experiments as room
from pag_inverse.experiments.classical_methods import METHODS

README = Path(room.__file__).with_name("README.md")
if not README.is_file():
    pytest.skip("the README is not beside the installed package", allow_module_level=True)
TEXT = README.read_text(encoding="utf-8")
COMMANDS = re.findall(r"scripts/(\w+)\.py (.*)", "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)))


@pytest.mark.parametrize("script, arguments", COMMANDS, ids=[script for script, _ in COMMANDS])
def test_every_command_parses(script: str, arguments: str) -> None:
    assert importlib.import_module(f"pag_inverse.cli.{script}").parser().parse_args(shlex.split(arguments))


def test_every_file_and_method_is_named() -> None:
    files = set(re.findall(r"`(\w+\.py)`", TEXT))
    assert files == {path.name for path in README.parent.glob("*.py")} - {"__init__.py"}
    assert all(f"`{method}`" in TEXT for method in METHODS)
