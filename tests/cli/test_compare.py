"""The comparison with classical methods: resumable, honest about what is there, one page."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pag_inverse.cli import compare as command
from pag_inverse.data.images import BUNDLED, bundled_photograph, prepare, write_png
from pag_inverse.experiments import stages
from pag_inverse.experiments.jobs import JobStore
from pag_inverse.settings import Hyperparameters
from pag_inverse.solvers import SOLVERS
from pag_inverse.storage.json_lines import read_lines

ARGS = ["--data", "data", "--training", "training", "--output", "out", "--tuning-pictures", "1", "--size", "64"]
ARGS += ["--sigmas", "0.2"]
TIMES = ("seconds", "cpu_seconds", "time", "opening")


def change_rows(monkeypatch: pytest.MonkeyPatch, change: Callable[[str, Hyperparameters], Hyperparameters]) -> None:
    whole = stages.row_of

    def changed(task: str, candidate: stages.Candidate) -> Hyperparameters | None:
        row = whole(task, candidate)
        return None if row is None else change(candidate.name, row)

    monkeypatch.setattr(stages, "row_of", changed)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in BUNDLED:
        folder = tmp_path / ("data" if name in ("astronaut", "coffee") else "training")
        folder.mkdir(exist_ok=True)
        write_png(folder / f"{name}.png", prepare(bundled_photograph(name), 256))
    change_rows(monkeypatch, lambda _, row: replace(row, steps=2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # without LPIPS' weights
    return tmp_path


def restored(folders: Path) -> list[dict[str, Any]]:
    return [entry for entry in read_lines(folders / "out" / "rank-000.jsonl")[0] if "method" in entry]


def test_one_command_makes_the_page_and_goes_on_where_it_was(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = [*ARGS, "--tasks", "box_inpainting", "--solvers", "dps", "psld", "--samples", "2", "--many", "dps_pag"]
    assert command.main(args) == 0
    entries = restored(folders)
    box = [e for e in entries if e["task"] == "box_inpainting"]
    by_method = {m: [e for e in box if e["method"] == m] for m in {e["method"] for e in box}}
    assert len(by_method["dps_pag"]) == 4 and len(by_method["dps"]) == len(by_method["biharmonic"]) == 2
    assert {"measurement", "total_variation", "autoencoder", "psld", "psld_pag"} < set(by_method)
    page = (folders / "out" / "comparison.html").read_text()
    assert "dps_pag, mean of 2" in page and "With PAG minus without" in page
    assert "Minus biharmonic" in page and "Minus dps_pag" in page and "LPIPS was not measured: no vgg16" in page
    assert page.count("data:image/jpeg") > 12

    record = folders / "out" / "rank-000.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:-2]) + lines[-2][:30])
    assert command.main(args) == 0
    assert read_lines(record)[1] == 0  # the torn line is removed
    again = restored(folders)
    strip = lambda e: {k: v for k, v in e.items() if k not in TIMES}  # noqa: E731
    key = lambda e: e["restoration"]  # noqa: E731
    assert [strip(e) for e in sorted(again, key=key)] == [strip(e) for e in sorted(entries, key=key)]

    assert command.main([*args, "--seed", "3"]) == 2
    assert command.main([*args, "--many", "hmc"]) == command.main([*args, "--sigmas", "0"]) == 2
    assert command.main([*args, "--lpips-weights", "none.pth"]) == command.main([*args, "--solvers", "hmc"]) == 2
    change_rows(monkeypatch, lambda m, row: replace(row, options={**row.options, "eta": 5.0}) if m == "dps" else row)
    assert command.main(args) == 0
    now = restored(folders)
    assert [(e["method"], e["sample"]) for e in now[len(again) :]] == 2 * [("dps", 0)]
    assert len({e["files"]["restoration"]["path"] for e in now}) == len(now)
    page = (folders / "out" / "comparison.html").read_text()
    assert command.main([*args, "--page-only"]) == 0
    assert (folders / "out" / "comparison.html").read_text() == page and len(restored(folders)) == len(now)


def test_all_solvers_with_and_without_pag_one_sample_first(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names with underscores are names; a solver without a row is left out and told."""
    short = stages.row_of

    def row_of(task: str, candidate: stages.Candidate) -> Hyperparameters | None:
        if candidate.solver == "psld":
            return None
        return short(task, replace(candidate, solver="pigdm") if candidate.solver == "two_words" else candidate)

    monkeypatch.setitem(SOLVERS, "two_words", SOLVERS["pigdm"])
    monkeypatch.setattr(stages, "row_of", row_of)
    args = [*ARGS, "--tasks", "gaussian_deblur", "--solvers", "psld", "two_words", "dps", "--samples", "2", "--sigmas"]
    assert command.main(args) == 0
    left_out = "Left out of gaussian_deblur, which has no row natural of it: psld_pag, psld."
    assert left_out in capsys.readouterr().err
    solved = [e for e in restored(folders) if e["passes"]]
    assert [e["sample"] for e in solved] == [0] * 8 + [1] * 8
    names = ["two_words", "dps", "two_words_pag", "dps_pag"]  # as few passes as with PAG are more
    assert [e["method"] for e in solved] == [name for name in names for _ in range(2)] * 2
    for e in solved:  # two steps: each one pass forward and one backward, and the perturbed pass
        forward = 4 if e["method"].endswith("_pag") else 2
        assert (e["passes"]["forward"], e["passes"]["backward"], e["cpu_seconds"] > 0) == (forward, 2, True)
        assert e["passes"]["autoencoder_forward"] == e["passes"]["autoencoder_backward"] == 0
    page, text = ((folders / "out" / f"comparison.{kind}").read_text() for kind in ("html", "md"))
    assert "two_words_pag, mean of 2" in page and "Minus dps_pag" in page and left_out in page
    assert (
        left_out in text
        and "| two_words_pag |" in text
        and "PSNR minus that of dps_pag" in text
        and "| 4 + 2 |" in text
    )
    assert command.main([*args, "--reference", "two_words"]) == 0
    assert "Minus two_words<" in (folders / "out" / "comparison.html").read_text()
    assert command.main([*args, "--reference", "psnr"]) == 2


SHORT = """
import sys
from dataclasses import replace
from pag_inverse.cli.compare import main
from pag_inverse.experiments import stages

whole = stages.row_of
stages.row_of = lambda task, candidate: replace(whole(task, candidate), steps=2)
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_share_the_restorations(folders: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    args = [*ARGS, "--tasks", "super_resolution", "--solvers", "dps", "--samples", "2", "--sigmas"]
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "-c", SHORT, *args], env={**os.environ, **together, "RANK": rank})
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    parts = [read_lines(folders / "out" / f"rank-00{rank}.jsonl")[0] for rank in (0, 1)]
    made = [{e["restoration"] for e in part} for part in parts]
    assert made[0] and made[1] and not made[0] & made[1]
    assert command.main([*args, "--output", "alone"]) == 0
    alone, _ = read_lines(folders / "alone" / "rank-000.jsonl")
    strip = lambda e: {k: v for k, v in e.items() if k not in TIMES}  # noqa: E731
    key = lambda e: e["restoration"]  # noqa: E731
    assert sorted(map(strip, [*parts[0], *parts[1]]), key=key) == sorted(map(strip, alone), key=key)
    tables = [(folders / name / "comparison.md").read_text().splitlines() for name in ("out", "alone")]
    cells = [[line.split("|")[:3] for line in lines] for lines in tables]  # without the seconds
    assert cells[0] == cells[1]


def test_a_picture_that_changed_is_restored_again(folders: Path) -> None:
    args = [*ARGS, "--tasks", "super_resolution", "--solvers", "dps", "--samples", "1", "--sigmas"]
    assert command.main(args) == 0
    before = len(restored(folders))
    write_png(folders / "data" / "coffee.png", prepare(bundled_photograph("rocket"), 256))
    assert command.main(args) == 0
    again = restored(folders)[before:]
    assert {e["picture"] for e in again} == {"coffee"} and len(again) == before / 2
    truth = np.asarray(PIL.Image.open(folders / "out" / "truths" / "coffee.png"))
    assert np.array_equal(truth, np.asarray(PIL.Image.open(folders / "data" / "coffee.png"))[96:160, 96:160])


def test_scores_are_those_of_the_saved_pictures(folders: Path) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    assert command.main([*ARGS, "--tasks", "gaussian_deblur", "--solvers", "dps", "--samples", "1"]) == 0
    entries = restored(folders)
    for entry in entries:
        picture, truth = (
            np.asarray(PIL.Image.open(folders / "out" / entry["files"][kind]["path"]))
            for kind in ("restoration", "truth")
        )
        assert entry["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, picture), abs=1e-9)
    scored = {e["method"]: e["psnr"] for e in entries if e["picture"] == "astronaut"}
    assert scored["total_variation"] > scored["measurement"]


def test_what_bounds_a_restoration(folders: Path) -> None:
    """sigma 0.2 on [-1, 1] is 20 dB, a little more once clipped; a denoiser that is worth its name gains by it."""
    assert command.main([*ARGS, "--tasks", "super_resolution", "--solvers", "psld", "--samples", "1"]) == 0
    entries = restored(folders)
    psnr = {(e["task"], e["method"], e["picture"]): e["psnr"] for e in entries}
    for picture in ("astronaut", "coffee"):
        noisy, tv, one_step = (
            psnr["denoising_0.2", m, picture] for m in ("measurement", "total_variation", "one_step")
        )
        assert 20 < noisy < 21 and tv > noisy + 3 and one_step > noisy + 3
        assert psnr["super_resolution", "autoencoder", picture] > 25
    left = [e["residual"] for e in entries if e["method"] == "autoencoder"]
    assert all(1 < residual < 1.5 for residual in left)  # the noise, and the round trip's own error


def test_a_strength_is_tuned_once_for_a_set_of_training_pictures(tmp_path: Path) -> None:
    tuned: list[int] = []

    def tune() -> float:
        tuned.append(1)
        return 0.25

    store = JobStore(tmp_path, {"size": 64})
    with store.run.open():
        assert [store.strength("blur.wiener", {"a": "11"}, (0.25, 0.5), tune) for _ in range(2)] == [0.25, 0.25]
        store.strength("blur.wiener", {"a": "12"}, (0.25, 0.5), tune)
        assert store.strength("blur.wiener", {"a": "12"}, (0.1, 0.25), None) == 0.25
    assert len(tuned) == 2
    with pytest.raises(KeyError):
        store.strength("blur.wiener", {"b": "11"}, (0.25,), None)
    with pytest.raises(KeyError):  # a value that was never tried is a damaged one
        store.strength("blur.wiener", {"a": "12"}, (0.1,), None)


def test_the_manifest_says_what_was_compared(folders: Path) -> None:
    args = [*ARGS, "--tasks", "super_resolution", "--solvers", "dps", "--samples", "1", "--sigmas"]
    assert command.main(args) == 0
    manifest = json.loads((folders / "out" / "manifest.json").read_text())
    assert manifest["kind"] == "comparison" and manifest["settings"] == {"size": 64, "seed": 0, "precision": "float32"}
    methods = {entry["method"] for entry in manifest["restorations"].values() if "method" in entry}
    assert methods == {"measurement", "bicubic", "total_variation", "dps", "dps_pag"}
