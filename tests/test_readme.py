"""The README's Python runs as it is written, on a smaller picture and with fewer steps."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_five_lines_run() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {"x": torch.zeros(1, 3, 64, 64)}
    exec(code.replace("256", "64").replace("steps=row.steps", "steps=2"), names)
    assert names["result"].x.shape == (1, 3, 64, 64)  # type: ignore[attr-defined]


LAUNCHER = ("--standalone", "--nproc-per-node")  # torchrun's own


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`?(--[a-z][a-z0-9-]+)", README))))
def test_every_flag_exists(flag: str) -> None:
    commands = (importlib.import_module(f"pag_inverse.cli.{script.stem}") for script in (ROOT / "scripts").glob("*.py"))
    flags = {name for command in commands for action in command.parser()._actions for name in action.option_strings}
    assert flag in {*flags, *LAUNCHER}


def test_every_picture_exists() -> None:
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file()
