"""The benchmark's command: one run, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pag_inverse.cli import benchmark


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    assert benchmark.main(["--prior", "pixel", "--size", "32", "--repeats", "1", "--output", str(output)]) == 0
    content = json.loads(output.read_text())
    (case,) = content["cases"]
    assert case["memory"]["ours"]["process_mb"] > 0 and case["seconds"]["published"][0] > 0
    assert "over bound" in capsys.readouterr().out


def test_sampling_under_each_guidance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prior without prompts has no CFG."""
    output = tmp_path / "figures.json"
    args = ["--prior", "pixel", "--size", "64", "--repeats", "1", "--guidances", "cfg", "seg"]
    assert benchmark.main([*args, "--output", str(output)]) == 0
    lines = json.loads(output.read_text())["table"]
    assert [line["guidance"] for line in lines] == ["seg"]
    assert lines[0]["iterations a second"] > 0 and lines[0]["process_mb"] > 0
    assert "it/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"), [(["--repeats", "0"], "repeats is 0"), (["--prior", "other"], "ffhq-architecture"),
                          (["--size", "0"], "sizes.0 is 0"), (["--precision", "half"], "bfloat16"),
                          (["--guidances", "other"], "cfg_pag"), (["--guidances", "pag", "pag"], "given twice"),
                          (["--guidances", "pag", "--solver", "dps"], "--solver")],
)  # fmt: skip
def test_bad_input_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = benchmark.main(args)
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err.strip()
    assert status == 2 and message in error and len(error.splitlines()) == 1
