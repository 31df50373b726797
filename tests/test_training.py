"""Training: an interrupted run goes on bit for bit, and what it writes is a prior that loads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import UNet2DModel

from pag_inverse import load_prior
from pag_inverse.cli import train_prior as command
from pag_inverse.training.preview import draw_strip
from pag_inverse.data.images import bundled_photograph, prepare, write_png
from pag_inverse.training import networks as architectures
from pag_inverse.training.trainer import Crops, Trainer, TrainSettings, eps_objective, validate_autoencoder

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train_prior.py"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        write_png(folder / f"{name}.png", prepare(bundled_photograph(name), 96))
    return folder


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


def test_one_large_gradient_does_not_undo_a_network(photographs: Path, tmp_path: Path) -> None:
    """Gradients of norm 0.01 and once 0.9, which a fixed bound of 1 lets pass: it counts as three usual ones."""
    model = torch.nn.Linear(1, 1, bias=False)
    settings = TrainSettings("pixel", 1000, 1, ((32, 1.0),), 1e-3, 0, 0.99, 0, "float32", "", None)
    data = Crops(sorted(photographs.iterdir()), ((32, 1.0),), 1, 0)
    scale = [0.01]
    trainer = Trainer(model, lambda m, *_: scale[0] * m.weight.sum(), data, settings, tmp_path, torch.device("cpu"))
    for _ in range(300):
        trainer.train_step()
    scale[0] = 0.9
    trainer.train_step()
    assert float(model.weight.grad.norm()) == pytest.approx(3 * 0.01, rel=0.2)
    before = model.weight.detach().clone()
    scale[0] = float("nan")
    trainer.train_step()
    scale[0] = 0.01
    trainer.train_step()
    assert torch.isfinite(model.weight).all() and not torch.equal(model.weight, before)


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


def test_of_several_processes_each_has_crops_of_its_own_and_one_side(photographs: Path) -> None:
    files, sizes = sorted(photographs.iterdir()), ((32, 0.5), (64, 0.5))
    first, second = (Crops(files, sizes, batch=4, seed=3, rank=rank) for rank in (0, 1))
    assert all(first(k).shape == second(k).shape for k in range(20))
    assert not torch.equal(first(0), second(0))


@pytest.mark.parametrize("kind", ["pixel", "latent", "autoencoder"])
def test_a_strip_shows_restorations_and_samples(kind: str, photographs: Path, tmp_path: Path) -> None:
    vae = architectures.autoencoder()
    vae.save_pretrained(tmp_path / "vae")
    model = {"pixel": architectures.pixel_unet, "latent": architectures.latent_unet, "autoencoder": lambda: vae}[kind]()
    files = sorted(photographs.iterdir())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        gains = draw_strip(model, kind, tmp_path / "vae", files, tmp_path / "strip.png", steps=2)
    picture = PIL.Image.open(tmp_path / "strip.png")
    assert picture.size == ((256, 256) if kind == "autoencoder" else (768, 256))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert set(gains) == (set() if kind == "autoencoder" else {"gaussian_deblur", "super_resolution"})


def test_the_autoencoder_starts_from_something_that_reconstructs(photographs: Path) -> None:
    validate = validate_autoencoder(sorted(photographs.iterdir()), 96, torch.device("cpu"))
    torch.manual_seed(0)
    with torch.no_grad():
        assert validate(architectures.autoencoder())["psnr"] > 18


@pytest.mark.parametrize(("limit", "weight"), [(4.0, 4.0), (100.0, 10.0)])
def test_strong_noise_weighs_as_its_sigma_up_to_the_limit(limit: float, weight: float) -> None:
    """A network that says nothing errs by eps^2, 1 in the mean; sigma is 10 where abar is 1/101."""

    def silent(x: torch.Tensor, t: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.zeros_like(x))

    objective = eps_objective(torch.full((1000,), 1 / 101), sigma_limit=limit)
    loss = objective(silent, torch.zeros(4, 3, 64, 64), torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(weight, rel=0.03)


def test_crops_depend_on_seed_and_step_alone(photographs: Path) -> None:
    files = sorted(photographs.iterdir())
    crops = Crops(files, ((32, 0.5), (64, 0.5)), batch=4, seed=3)
    again = Crops(files, ((32, 0.5), (64, 0.5)), batch=4, seed=3)
    shapes = {tuple(crops(k).shape) for k in range(20)}
    assert shapes == {(4, 3, 32, 32), (1, 3, 64, 64)}  # as many pixels in either
    assert all(torch.equal(crops(k), again(k)) for k in (7, 2))
    assert not np.array_equal(crops(2), crops(3))


def test_recoloured_crops_have_the_same_grey_and_more_colour(tmp_path: Path) -> None:
    picture = np.empty((32, 32, 3), np.uint8)
    picture[:] = (120, 130, 140)
    PIL.Image.fromarray(picture).save(tmp_path / "blueish.png")
    data = Crops([tmp_path / "blueish.png"], ((32, 1.0),), batch=64, seed=0, recolour=0.5)
    colours = (data(0)[..., 0, 0] + 1) * 127.5
    spread = colours.amax(1) - colours.amin(1)
    plain = (colours == torch.tensor([120.0, 130.0, 140.0])).all(1)
    assert 0.3 < plain.float().mean() < 0.7
    assert torch.allclose(colours.mean(1), torch.tensor(130.0), atol=0.01)
    assert float(spread.min()) > 19.9 and 60 < float(spread.max()) <= 80
    assert len({tuple(c.argsort().tolist()) for c in colours}) == 6  # every order of the channels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "nowhere"], "no folder"),
        (["--crops", "33:1"], "multiples of 32"),
        (["--crops", "many"], "64:0.8"),
        (["--kind", "latent"], "--autoencoder"),
        (["--crops", "512:1"], "512 pixels"),
        (["--steps", "0"], "at least 1"),
        (["--init", str(SCRIPT)], "--init"),
        (["--sigma-limit", "0"], "above 0"),
        (["--recolour", "1.5"], "0 to 1"),
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
    del state["settings"]["recolour"]
    torch.save(state, tmp_path / "run" / "state.pt")
    assert command.main(arguments("autoencoder", photographs, tmp_path / "run", steps=2)) == 0
    assert command.main([*arguments("autoencoder", photographs, tmp_path / "run", steps=2), "--recolour", "0.5"]) == 2
