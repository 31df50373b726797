"""Training: an interrupted run goes on bit for bit, and what it writes is a prior that loads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from pag_inverse.cli import train as command
from pag_inverse.priors import load_prior
from pag_inverse.training.crops import Crops
from pag_inverse.training.settings import TrainSettings
from pag_inverse.training.trainer import Diverged, Trainer

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_prior.py"


def arguments(kind: str, photographs: Path, output: Path, steps: int = 6) -> list[str]:
    return [
        *("--kind", kind, "--data", str(photographs), "--output", str(output), "--steps", str(steps)),
        *("--batch", "2", "--crops", "32:0.5,64:0.5", "--warmup", "2", "--save-every", "0", "--validate-every", "3"),
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "state.pt", weights_only=True)["ema"]


def test_a_run_that_was_killed_goes_on_bit_for_bit(photographs: Path, tmp_path: Path) -> None:
    args = arguments("autoencoder", photographs, tmp_path / "killed", steps=12)
    process = subprocess.Popen([sys.executable, str(SCRIPT), *args], stdout=subprocess.DEVNULL)
    while not (tmp_path / "killed" / "state.pt").exists() and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for output in ("killed", "whole"):
        subprocess.run(
            [sys.executable, str(SCRIPT), *arguments("autoencoder", photographs, tmp_path / output, 12)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    killed, whole = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all(torch.equal(killed[k], whole[k]) for k in whole)


def test_a_run_that_diverges_stops_and_leaves_weights(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a network that has forgotten half of what it knew does: the loss is twice what it was, and stays there."""

    def train_step(self: Trainer) -> float:
        self.step += 1
        return 0.02 if self.step < 250 else 0.04

    monkeypatch.setattr(Trainer, "train_step", train_step)
    args = arguments("autoencoder", photographs, tmp_path / "run", steps=500)
    assert command.main([*args, "--validate-every", "1000"]) == 2
    error = capsys.readouterr().err
    assert "diverged at step 370" in error and "weights of step 369" in error and len(error.splitlines()) == 1
    assert (tmp_path / "run" / "vae" / "diffusion_pytorch_model.safetensors").is_file()


def test_a_folder_with_other_files_and_a_device_that_is_not_there_are_refused(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    for output, extra, message in (
        ("notes", [], "not a training run's"),
        ("run", ["--device", "cuda:99"], "device cuda:99"),
    ):
        assert command.main([*arguments("pixel", photographs, tmp_path / output), *extra]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["notes.txt"] and not (tmp_path / "run").exists()


def test_gradients_that_are_not_finite_do_not_pass_in_silence(photographs: Path, tmp_path: Path) -> None:
    """One such step moves nothing; many of them end the run."""
    settings = TrainSettings("pixel", ((32, 1.0),), steps=500, batch=1, warmup=0)
    model, loss = torch.nn.Conv2d(3, 3, 1), [1.0]
    data = Crops(sorted(photographs.rglob("*.png")), settings.crops, 1, 0)
    trainer = Trainer(model, lambda m, x, g: m(x).mean() * loss[0], data, settings, tmp_path, torch.device("cpu"))
    trainer.train_step()
    before, loss[0] = model.weight.detach().clone(), float("nan")
    trainer.train_step()
    assert torch.equal(model.weight, before)
    with pytest.raises(Diverged, match="21 of the last 22 steps had gradients that are not finite"):
        for _ in range(100):
            trainer.train_step()


def test_what_is_written_is_a_prior(photographs: Path, tmp_path: Path) -> None:
    assert command.main(arguments("pixel", photographs, tmp_path / "pixel", steps=2)) == 0
    prior = load_prior(tmp_path / "pixel")
    assert prior.state_shape((3, 64, 64)) == (3, 64, 64) and prior.layers()
    UNet2DModel.from_pretrained(tmp_path / "pixel" / "unet", local_files_only=True)  # diffusers opens it itself
    assert "M parameters" in (tmp_path / "pixel" / "README.md").read_text()
    assert command.main(arguments("autoencoder", photographs, tmp_path / "autoencoder", steps=2)) == 0
    vae = ["--autoencoder", str(tmp_path / "autoencoder" / "vae")]
    assert command.main([*arguments("latent", photographs, tmp_path / "latent", steps=2), *vae]) == 0
    latent = load_prior(tmp_path / "latent")
    assert latent.state_shape((3, 64, 64)) == (8, 16, 16)
    assert latent.betas[-1] == pytest.approx(0.012)


def test_two_processes_train_one_model(photographs: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command_line = [*torchrun, str(SCRIPT), *arguments("autoencoder", photographs, tmp_path / "two", steps=4)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command_line, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("starting at step 0") == 1  # one of them speaks
    assert command.main(arguments("autoencoder", photographs, tmp_path / "one", steps=4)) == 0
    two, one = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert any(not torch.equal(two[k], one[k]) for k in one)  # the second one's crops count
    assert (tmp_path / "two" / "vae" / "config.json").exists()
    assert "in each of 2 processes" in (tmp_path / "two" / "README.md").read_text()
    assert "processes" not in (tmp_path / "one" / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "nowhere"], "no folder"),
        (["--crops", "33:1"], "multiples of 32"),
        (["--crops", "many"], "64:0.8"),
        (["--kind", "latent"], "--autoencoder"),
        (["--crops", "512:1"], "512 pixels"),
        (["--steps", "0"], "steps is 0"),
        (["--init", str(SCRIPT)], "--init"),
        (["--sigma-limit", "0"], "greater than 0"),
        (["--recolour", "1.5"], "less than or equal to 1"),
    ],
)
def test_bad_input_is_one_line(
    change: list[str], message: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments("pixel", photographs, tmp_path / "run"), *change]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_other_settings_in_the_same_folder(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments("autoencoder", photographs, tmp_path / "run", steps=2)) == 0
    assert command.main([*arguments("autoencoder", photographs, tmp_path / "run", steps=2), "--seed", "9"]) == 2
    assert "seed 0 (now 9)" in capsys.readouterr().err


def test_a_run_from_before_a_setting_existed_goes_on(photographs: Path, tmp_path: Path) -> None:
    assert command.main(arguments("autoencoder", photographs, tmp_path / "run", steps=2)) == 0
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    del state["settings"]["recolour"], state["settings"]["kl_weight"]
    state["settings"]["betas"] = ""  # a setting that is no longer one
    torch.save(state, tmp_path / "run" / "state.pt")
    assert command.main(arguments("autoencoder", photographs, tmp_path / "run", steps=2)) == 0
    assert command.main([*arguments("autoencoder", photographs, tmp_path / "run", steps=2), "--recolour", "0.5"]) == 2
