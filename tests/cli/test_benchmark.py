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


@pytest.mark.parametrize(
    ("args", "message"), [(["--repeats", "0"], "repeats is 0"), (["--prior", "other"], "ffhq-architecture"),
                          (["--size", "0"], "sizes.0 is 0"), (["--precision", "half"], "bfloat16")],
)  # fmt: skip
def test_bad_input_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = benchmark.main(args)
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err.strip()
    assert status == 2 and message in error and len(error.splitlines()) == 1
