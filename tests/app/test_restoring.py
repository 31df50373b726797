"""A restoration of the page: told step by step, the same as solve's, stopped on demand, one at a time."""

from __future__ import annotations

import json
import shlex
import threading
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pag_inverse.app.choices import Choices, Files, make_request
from pag_inverse.app.restoring import Outcome, Progress, Stopped, Waiting, restoring
from pag_inverse.app.saying import duration, progress_line, residual_sentence, result_text, uncertainty_text
from pag_inverse.cli.solve import main
from pag_inverse.data.images import bundled_photograph, prepare, write_png
from pag_inverse.restoration.summary import LOW, residual_warning

QUICK = {"size": 64, "steps": 3}


def photograph(folder: Path, name: str = "photo.png", side: int = 64) -> Path:
    write_png(folder / name, prepare(bundled_photograph("coffee"), side))
    return folder / name


def run(tmp_path: Path, files: Files, **choices: object) -> tuple[list[Progress], Outcome]:
    request = make_request(Choices(**choices), files)  # type: ignore[arg-type]
    *steps, outcome = restoring(request, files, tmp_path / "result", threading.Event(), pause=0)
    assert isinstance(outcome, Outcome) and all(isinstance(step, Progress) for step in steps)
    return steps, outcome  # type: ignore[return-value]


def test_it_gives_what_solve_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, by the command line that comes with the download."""
    files = Files(photograph(tmp_path))
    steps, outcome = run(tmp_path, files, task="gaussian_deblur", samples=2, seed=3, explain=True, **QUICK)
    assert [step.step for step in steps] == list(range(7)) and {step.steps for step in steps} == {6}
    assert [step.sample for step in steps[1:]] == [1, 1, 1, 2, 2, 2]
    assert all(step.picture is not None and step.picture.shape == (64, 64, 3) for step in steps[1:])
    zipfile.ZipFile(outcome.archive).extractall(tmp_path / "download")
    monkeypatch.chdir(tmp_path / "download")
    words = shlex.split(Path("command.txt").read_text())
    assert words[:2] == ["pag-inverse", "solve"] and main(words[2:]) == 0
    ours, theirs = Path("manifest.json"), Path("again/manifest.json")
    (a,), (b,) = (json.loads(path.read_text())["images"].values() for path in (ours, theirs))
    assert a["restoration_sha256"] == b["restoration_sha256"] and a["metrics"] == b["metrics"]
    assert json.loads(ours.read_text())["settings"] == json.loads(theirs.read_text())["settings"]
    assert (np.asarray(PIL.Image.open("photo_restoration.png")) == outcome.restoration).all()
    std, mean = np.load("photo_std.npy"), np.load("photo_mean.npy")
    assert std.shape == mean.shape == (3, 64, 64) and std.max() > 0
    shown = np.rint((np.clip(mean, -1, 1) + 1) * 127.5).transpose(1, 2, 0)
    assert np.abs(shown - np.asarray(PIL.Image.open("photo_mean.png"))).max() <= 1
    assert Path("inputs/photo.png").read_bytes() == files.picture.read_bytes()
    assert "| restoration |" in result_text(outcome)
    assert "standard deviation of 2 samples" in uncertainty_text(outcome.entry)
    assert outcome.picture("std") is not None and outcome.picture("explain") is not None
    assert outcome.picture("nothing") is None


def test_a_measurement_with_its_mask(tmp_path: Path) -> None:
    mask = np.full((64, 64), 255, np.uint8)
    mask[10:20, 10:40] = 0
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    files = Files(photograph(tmp_path), tmp_path / "mask.png")
    _, outcome = run(tmp_path, files, task="inpaint", own=True, sigma=0.02, steps=2)
    assert outcome.entry["metrics"] == {} and "PSNR" not in result_text(outcome)
    assert outcome.low == 0 and "follows the noise" not in result_text(outcome)  # known pixels keep their noise
    assert "Residual" in result_text(outcome) and outcome.before.shape == outcome.restoration.shape
    assert "inputs/mask/mask.png" in zipfile.ZipFile(outcome.archive).namelist()


def test_a_small_picture_is_compared_at_the_size_of_the_restoration(tmp_path: Path) -> None:
    files = Files(photograph(tmp_path, side=32))
    _, outcome = run(tmp_path, files, task="super_resolution_x2", own=True, sigma=0.02, steps=1)
    assert outcome.before.shape == outcome.restoration.shape == (64, 64, 3)


def test_it_stops(tmp_path: Path) -> None:
    files, stop = Files(photograph(tmp_path)), threading.Event()
    request = make_request(Choices(task="denoise", size=64, steps=1000), files)
    steps = restoring(request, files, tmp_path / "result", stop, pause=0)
    assert isinstance(next(steps), Progress)
    stop.set()
    with pytest.raises(Stopped):
        for _ in steps:
            pass


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second visitor's first step comes after the first visitor's end, also where that one leaves."""
    files = Files(photograph(tmp_path))
    request = make_request(Choices(task="denoise", size=64, steps=1000), files)
    first, left = restoring(request, files, tmp_path / "a", threading.Event(), pause=0), threading.Event()
    next(first)
    short = make_request(Choices(task="denoise", size=64, steps=2), files)
    told: list[bool] = []
    places: list[int] = []

    def second() -> None:
        for message in restoring(short, files, tmp_path / "b", threading.Event(), pause=0):
            if isinstance(message, Waiting):
                places.append(message.before)
            else:
                told.append(left.is_set())

    visitor = threading.Thread(target=second)
    visitor.start()
    for _ in range(5):
        next(first)
    assert told == []
    left.set()
    first.close()  # type: ignore[attr-defined]
    visitor.join(timeout=120)
    assert not visitor.is_alive() and told and all(told) and places == [1]


def test_one_that_waits_stops_at_once(tmp_path: Path) -> None:
    """The one that runs goes on, and the next one has its turn afterwards."""
    files, stop = Files(photograph(tmp_path)), threading.Event()
    request = make_request(Choices(task="denoise", size=64, steps=1000), files)
    first = restoring(request, files, tmp_path / "a", threading.Event(), pause=0)
    next(first)
    second = restoring(request, files, tmp_path / "b", stop, pause=0)
    assert next(second) == Waiting(1)
    stop.set()
    with pytest.raises(Stopped):
        next(second)
    assert isinstance(next(first), Progress)
    first.close()  # type: ignore[attr-defined]
    short = make_request(Choices(task="denoise", size=64, steps=1), files)
    *_, outcome = restoring(short, files, tmp_path / "c", threading.Event(), pause=0)
    assert isinstance(outcome, Outcome)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photograph(tmp_path, name)
    files = Files(tmp_path / "a.png", None, tmp_path / "even.npy")
    np.save(tmp_path / "even.npy", np.ones((4, 4)))
    request = make_request(Choices(task="deblur", own=True), files)
    with pytest.raises(ValueError, match="odd") as error:
        list(restoring(request, files, tmp_path / "result", threading.Event()))
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
    _, outcome = run(tmp_path, Files(tmp_path / "b.png"), task="denoise", size=64, steps=1)  # the next one works
    assert outcome.name == "b"


def test_sentences() -> None:
    assert "agrees with the measurement" in residual_sentence(1.1, 0.05)
    assert "Check the kernel, the mask and sigma" in residual_sentence(1.9, 0.05)
    assert "follows the noise" in residual_sentence(0.4, 0.05)
    for residual in (0.4, 0.75, 1.0, 1.4, 1.6):  # the same limits as solve's
        for low in (LOW, 0.0):
            agrees = residual_warning(residual, 0.05, low) == ""
            assert ("agrees with" in residual_sentence(residual, 0.05, low)) == agrees
    for unknown in (None, 0.0):
        assert "0.100 on the [-1, 1] range (12.8 of 255 levels)" in residual_sentence(0.1, unknown)
    assert (duration(0.2), duration(59), duration(61)) == ("1 s", "59 s", "1 min 1 s")
    line = progress_line(Progress(5, 20, 2, 4, 30.0, None))
    assert 'value="5" max="20"' in line and "Step 5 of 20, sample 2 of 4, about 30 s left" in line
    assert "left" not in progress_line(Progress(0, 20, 1, 1, 0.0, None))
