"""A run's folder: one writer, files written whole, nothing of others touched, and what kills and full disks leave."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pag_inverse.cli import train as command
from pag_inverse.settings.files import parse_json
from pag_inverse.storage.lock import lock
from pag_inverse.training import run as training
from pag_inverse.training.settings import RunOptions, TrainSettings
from pag_inverse.training.trainer import Trainer

Arguments = Callable[..., list[str]]
EXPORTED = ("vae/diffusion_pytorch_model.safetensors", "vae/config.json", "README.md")
# Runs each command in a child of its own that is killed at its n-th os.replace, for every n; then goes on with it.
KILLER = """
import json, os, signal, sys
import diffusers.models.autoencoders.autoencoder_kl, pag_inverse.training.run  # once, not in every child
from pag_inverse.cli import train
replace = os.replace

def child(arguments, killed_at, before):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    count = 0

    def kill(*args):
        nonlocal count
        count += 1
        if count == killed_at and before:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*args)
        if count == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = kill
    sys.stdout = open(os.devnull, "w")
    os._exit(train.main(arguments))

arguments, folder = json.loads(sys.argv[1]), sys.argv[2]
statuses = []
for n in range(1, 100):
    command = [word.replace("OUTPUT", f"{folder}/{n}") for word in arguments]
    if child(command, n, n % 2 == 1) == 0:
        break
    statuses.append(child(command, 0, False))
print(json.dumps(statuses))
"""


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


def test_killed_at_any_file_it_ends_with_the_same_weights(finished: Path, short_run: Arguments, tmp_path: Path) -> None:
    """Before and after a temporary file gets its name, at every file that a run writes."""
    arguments = json.dumps(short_run(Path("OUTPUT")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killer = [sys.executable, "-c", KILLER, arguments, str(tmp_path)]
    done = subprocess.run(killer, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout)
    assert statuses == [0] * len(statuses) and len(statuses) == 6  # states of steps 0, 1, 2; weights, config, card
    whole = content(finished)
    for folder in sorted(path for path in tmp_path.iterdir() if path.is_dir()):
        there = content(folder)
        assert set(there) == set(whole)
        assert all(there[name] == whole[name] for name in EXPORTED)


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("damage", ["truncated", "replaced", "deleted"])
def test_a_finished_run_mends_what_it_has_written(damage: str, name: str, run: Path, short_run: Arguments) -> None:
    before = content(run)
    if damage == "truncated":
        (run / name).write_bytes(before[name][:50])
    elif damage == "replaced":
        (run / name).write_bytes(before[name][::-1])
    else:
        (run / name).unlink()
    (run / "log.jsonl").unlink()  # the card is made of the state
    assert command.main(short_run(run)) == 0
    assert {**content(run), "log.jsonl": before["log.jsonl"]} == before


def test_a_second_run_in_the_same_folder_is_refused(
    run: Path, short_run: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(run)
    held = lock(run / ".train.lock")
    assert command.main(short_run(run)) == 2
    assert "another run is at work" in line(capsys)
    held.release()
    assert content(run) == before
    assert command.main(short_run(run)) == 0


def test_the_lock_is_held_for_the_whole_run(
    short_run: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    write_weights = training.write_weights

    def second(*args: object) -> None:
        seen.append(command.main(short_run(tmp_path / "run")))
        write_weights(*args)

    monkeypatch.setattr(training, "write_weights", second)
    assert command.main(short_run(tmp_path / "run")) == 0
    assert seen == [2] and "another run is at work" in line(capsys)


@pytest.mark.parametrize(
    "damage", ["truncated", "foreign", "empty", "one bit", "settings", "other network", "optimiser", "numbers"]
)
def test_a_damaged_state_is_told_and_left(
    damage: str, run: Path, short_run: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "state.pt"
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "foreign":
        torch.save({"state_dict": {"weight": torch.zeros(3)}}, path)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "one bit":
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    elif damage == "settings":
        torch.save({**state, "settings": ["a"]}, path)
    elif damage == "other network":
        torch.save({**state, "model": {"weight": torch.zeros(3)}}, path)
    elif damage == "optimiser":
        state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)
        torch.save(state, path)
    else:
        torch.save({**state, "step": 7}, path)
    before = content(run)
    assert command.main(short_run(run)) == 2
    assert "state.pt" in line(capsys)
    assert content(run) == before


def test_a_torn_line_of_the_log_is_passed_over(
    run: Path, short_run: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(run / "state.pt", weights_only=True)
    torch.save({**state, "validation": None}, run / "state.pt")
    card = (run / "README.md").read_text()
    with open(run / "log.jsonl", "a") as file:
        file.write('{"step": 2, "valid')
    assert command.main(short_run(run)) == 0
    assert (run / "README.md").read_text() == card and "psnr" in card
    assert "log.jsonl: 1 damaged" in capsys.readouterr().out


def test_the_log_is_json_after_a_torn_line(run: Path, short_run: Arguments, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "log.jsonl").write_text('{"step": 0, "lo')
    assert command.main(short_run(tmp_path / "new")) == 0
    last = (tmp_path / "new" / "log.jsonl").read_text().splitlines()[-1]
    assert parse_json(last)["step"] == 2


def test_a_full_disk_ends_in_one_line_and_the_command_goes_on(
    finished: Path,
    short_run: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At every file that is brought to the disk."""
    count, full_at, fsync = 0, 0, os.fsync

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for full_at in range(1, 8):  # three states, a line of the log, weights, config, card
        count, output = 0, tmp_path / str(full_at)
        assert command.main(short_run(output)) == 1
        assert "No space left" in (error := line(capsys)) and "the same command goes on" in error
        assert not list(output.rglob("*.tmp"))
        assert command.main(short_run(output)) == 0
        assert all(content(output)[name] == content(finished)[name] for name in EXPORTED)


def test_a_full_disk_is_an_oserror(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    settings = TrainSettings("autoencoder", ((32, 1.0),), steps=1, batch=1)
    with pytest.raises(OSError, match="No space left"):
        training.train(settings, RunOptions(photographs, tmp_path / "run"))


def test_weights_that_are_not_finite_are_not_saved(
    finished: Path,
    short_run: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The last good state stays, and its weights are written."""
    train_step = Trainer.train_step

    def poisoned(self: Trainer) -> float:
        loss = train_step(self)
        if self.step == 2:
            next(iter(self.model.parameters())).data.fill_(float("nan"))
        return loss

    monkeypatch.setattr(Trainer, "train_step", poisoned)
    assert command.main(short_run(tmp_path / "run", steps=3)) == 2
    assert "hold NaN or Inf" in (error := line(capsys)) and "weights of step 1" in error
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == 1 and all(torch.isfinite(value).all() for value in state["model"].values())


def test_averaged_weights_beyond_half_precision_are_not_written(
    run: Path, short_run: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(run / "state.pt", weights_only=True)
    next(iter(state["ema"].values())).fill_(1e6)
    torch.save(state, run / "state.pt")
    before = content(run)
    assert command.main(short_run(run)) == 2
    assert "half precision" in line(capsys) and content(run) == before


@pytest.mark.parametrize("name", ["run", "vae"])
def test_a_folder_that_cannot_be_written_is_refused_before_training(
    name: str, run: Path, short_run: Arguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != name and access(path, mode))
    before = content(run)
    assert command.main(short_run(run)) == 2
    assert "cannot be written" in line(capsys) and content(run) == before


def test_left_overs_are_removed_and_files_of_others_stay(run: Path, short_run: Arguments) -> None:
    (run / ".pag_inverse-0123456789ab.tmp").write_bytes(b"part")
    (run / "vae" / ".pag_inverse-0123456789ab.tmp").write_bytes(b"part")
    (run / "notes.txt").write_text("mine")
    (run / "vae" / "notes.txt").write_text("mine")
    assert command.main(short_run(run)) == 0
    assert not list(run.rglob("*.tmp"))
    assert (run / "notes.txt").read_text() == (run / "vae" / "notes.txt").read_text() == "mine"


def test_a_first_state_that_was_never_finished_is_no_hindrance(short_run: Arguments, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in (".pag_inverse-0123456789ab.tmp", ".train.lock", "log.jsonl"):
        (tmp_path / "run" / name).write_bytes(b"")
    assert command.main(short_run(tmp_path / "run")) == 0


def test_an_unreadable_preview_does_not_end_a_run(
    short_run: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw_preview(*args: object) -> dict[str, float]:
        raise ValueError("the image holds NaN or Inf")

    monkeypatch.setattr(training, "draw_preview", draw_preview)
    assert command.main(short_run(tmp_path / "run", "--preview-every", 1)) == 0
    assert "no preview of step 1" in capsys.readouterr().err


def test_a_run_copied_elsewhere_goes_on(run: Path, short_run: Arguments, tmp_path: Path) -> None:
    shutil.move(run, tmp_path / "moved")
    assert command.main(short_run(tmp_path / "moved")) == 0
