"""The benchmark's page: its commands parse, and its table is the stored result."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from statistics import median

import pytest

from pag_inverse.cli import benchmark

ROOM = Path(__file__).parents[2] / "pag_inverse" / "benchmark"
PAGE = (ROOM / "README.md").read_text()
(COMMANDS,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
NAMES = {"ffhq-architecture": "FFHQ architecture", "sd15-architecture": "Stable Diffusion architecture"}


@pytest.mark.parametrize("command", COMMANDS.splitlines())
def test_a_command_parses(command: str) -> None:
    words = shlex.split(command)
    assert words[:2] == ["python", "scripts/benchmark.py"]
    assert benchmark.parser().parse_args(words[2:]).priors


def test_the_table_is_the_stored_result() -> None:
    found = json.loads((ROOM / "results" / "processor_2_cores.json").read_text())
    for case, row in zip(found["cases"], found["table"], strict=True):
        name = NAMES.get(row["prior"], f"`{row['prior']}`")
        start = f"| {name}, {row['solver'].upper()}, {row['size']} px, {row['precision']} |"
        (line,) = [line for line in PAGE.splitlines() if line.startswith(start)]
        figures = [float(text) for text in re.findall(r"\| (\d[\d.]*)", line)]
        ratios = [row["over bound (processor time)"], row["published over ours (processor time)"]]
        seconds = median(case["processor_seconds"]["ours"])
        assert figures == pytest.approx([seconds, *ratios, row["memory over ours"]], rel=0.01)
        assert f"({row['process_mb']:.0f} MB)" in line


def test_the_table_of_the_gpu_is_the_stored_result() -> None:
    found = json.loads((ROOM / "results" / "h100.json").read_text())
    assert {case["device_name"] for case in found["cases"]} == {"NVIDIA H100 80GB HBM3"}
    for row in found["table"]:
        name = NAMES[row["prior"]].removesuffix(" architecture")
        (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {row['solver'].upper()}, {name}, ")]
        figures = [float(text) for text in re.findall(r"\| (\d[\d.]*)", line)]
        ratios = [row["over bound"], row["published over ours"], row["memory over ours"]]
        assert figures == pytest.approx([row["seconds a step"], *ratios], rel=0.01)
        assert f", {row['size']} px |" in line and f"({row['device_mb']:.0f} MB)" in line
