"""Progress in a log: few lines, each whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pag_inverse.runtime import progress as module
from pag_inverse.runtime.processes import Processes
from pag_inverse.runtime.progress import Progress


def work(folder: Path, images: int, json_lines: bool = False) -> None:
    progress = Progress([folder], images, images, 0, Processes(), json_lines)
    for i in range(images):
        for step in range(1, 101):
            progress.step(step, 100, 1.5)
        with (folder / "rank-000.jsonl").open("a") as file:
            file.write("{}\n")
        progress.image("run", f"{i}")
    progress.close()


def test_a_log_is_not_flooded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work(tmp_path, 50)
    lines = capsys.readouterr().err.splitlines()
    assert (
        len(lines) == 2
        and lines[0].startswith("process 0: 1/50")
        and lines[1].startswith("process 0: 50/50, all 50/50")
    )


def test_a_long_run_says_something_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_INTERVAL", 0.0)
    work(tmp_path, 5)
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_lines_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work(tmp_path, 3, json_lines=True)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["image"] for line in told] == ["0", "1", "2"] and told[-1]["done"] == 3
    assert all(line["images_per_hour"] > 0 and line["run"] == "run" for line in told)
