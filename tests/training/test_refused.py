"""Odd invocations: one line on stderr, exit status 2, and nothing written anywhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from pag_inverse.cli import train as command

Arguments = Callable[..., list[str]]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def place(finished: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that can be wrong; the current folder of the commands."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(photographs, place / "pictures")
    shutil.copytree(finished, place / "run")
    make_files(place)
    make_pictures(place)
    make_weights(place, finished / "vae")
    make_outputs(place, finished)
    return place


def make_files(place: Path) -> None:
    (place / "file").write_text("text")
    (place / "empty").mkdir()
    os.mkfifo(place / "pipe")
    (place / "nowhere_link").symlink_to(place / "nowhere")
    (place / "loop").symlink_to(place / "loop")


def make_pictures(place: Path) -> None:
    for name, size in (("small", 20), ("one", 64)):
        (place / name).mkdir()
        for k in range(1 if name == "one" else 4):
            PIL.Image.new("RGB", (size, size)).save(place / name / f"{k}.png")
    for name, content in (("texts", b"a text"), ("hollow", b""), ("torn", None)):
        shutil.copytree(place / "pictures", place / name)
        content = (place / name / "coffee.png").read_bytes()[:500] if content is None else content
        (place / name / "coffee.png").write_bytes(content)
    (place / "twins").mkdir()
    for suffix in ("png", "bmp"):
        PIL.Image.new("RGB", (64, 64)).save(place / "twins" / f"a.{suffix}")
    (place / "hidden").mkdir()
    for k in range(4):
        PIL.Image.new("RGB", (64, 64)).save(place / "hidden" / f".{k}.png")


def make_weights(place: Path, vae: Path) -> None:
    weights = load_file(vae / WEIGHTS)
    first = next(iter(weights))
    save_file({**weights, first: torch.full_like(weights[first], float("nan"))}, place / "nan.safetensors")
    save_file({"a": torch.zeros(2)}, place / "other.safetensors")
    (place / "torn.safetensors").write_bytes((vae / WEIGHTS).read_bytes()[:1000])
    (place / "huge.safetensors").write_bytes(b"\xff" * 100)
    for name in ("vae_nan", "vae_torn", "vae_unscaled", "vae_other", "vae_bare", "vae_text"):
        shutil.copytree(vae, place / name)
    shutil.copy(place / "nan.safetensors", place / "vae_nan" / WEIGHTS)
    shutil.copy(place / "torn.safetensors", place / "vae_torn" / WEIGHTS)
    (place / "vae_bare" / WEIGHTS).unlink()
    (place / "vae_text" / "config.json").write_text("{")
    config = json.loads((vae / "config.json").read_text())
    (place / "vae_unscaled" / "config.json").write_text(json.dumps({**config, "scaling_factor": 0}))
    (place / "vae_other" / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderTiny"}))
    for name, channels, levels in (("vae_four", 4, 3), ("vae_shallow", 8, 2)):
        AutoencoderKL(
            block_out_channels=(8,) * levels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            norm_num_groups=8,
            latent_channels=channels,
        ).save_pretrained(place / name)


def make_outputs(place: Path, finished: Path) -> None:
    """Folders in which something is not a training run's."""
    for name in ("notes", "own_log", "weights_only", "hidden_note"):
        (place / "outputs" / name).mkdir(parents=True)
    (place / "outputs" / "notes" / "notes.txt").write_text("mine")
    (place / "outputs" / "hidden_note" / ".notes").write_text("mine")
    (place / "outputs" / "own_log" / "log.jsonl").write_text('{"event": "of another program"}\n')
    shutil.copytree(finished / "vae", place / "outputs" / "weights_only" / "vae")
    for name in ("log_pipe", "log_link", "state_folder", "vae_file", "vae_link", "card_folder", "config_folder"):
        shutil.copytree(finished, place / "outputs" / name)
    for name in ("log_pipe", "log_link"):
        (place / "outputs" / name / "log.jsonl").unlink()
    os.mkfifo(place / "outputs" / "log_pipe" / "log.jsonl")
    (place / "outputs" / "log_link" / "log.jsonl").symlink_to(place / "file")
    for name, part in (
        ("state_folder", "state.pt"),
        ("card_folder", "README.md"),
        ("config_folder", "vae/config.json"),
    ):
        (place / "outputs" / name / part).unlink()
        (place / "outputs" / name / part).mkdir()
    for name in ("vae_file", "vae_link"):
        shutil.rmtree(place / "outputs" / name / "vae")
    (place / "outputs" / "vae_file" / "vae").write_text("mine")
    (place / "outputs" / "vae_link" / "vae").symlink_to(place / "run" / "vae")


def everything(place: Path) -> dict[str, object]:
    """Every path below a folder, with the content of files."""
    return {str(p): p.read_bytes() if p.is_file() else p.is_dir() for p in sorted(place.rglob("*"))}


NUMBERS = {
    "--steps": ("0", "-1", "1.5", "nan", "1" + "0" * 30, ""),
    "--batch": ("0", "-3", "1000000", "9" * 12, "x"),
    "--learning-rate": ("0", "-1e-3", "nan", "inf", "1e300", "fast"),
    "--warmup": ("-1", "1e3", "1" + "0" * 20),
    "--ema": ("1", "1.5", "-0.1", "nan", "inf"),
    "--seed": ("-1", str(2**32), "1e3", "9" * 40),
    "--kl-weight": ("-1", "nan", "inf", "1e30"),
    "--recolour": ("-0.1", "1.5", "nan"),
    "--save-every": ("-1", "nan", "inf"),
    "--validate-every": ("0", "-1", "nan"),
    "--preview-every": ("-1", "0.5"),
    "--precision": ("float16", "1.5", "", "FLOAT32"),
    "--device": ("1.5", "", "gpu", "cuda:99", "cuda:-1", "cpu:0", "meta", "CPU", "cuda:1e3"),
    "--card-note": ("", " ", "two\nlines", "\udcff", "x" * 5000),
    "--crops": ("", ":", "64", "64:", ":1", "64:0", "64:-1", "64:nan", "64:inf", "64:1e-320", "64:1e308,32:1e308",
                "33:1", "0:1", "-64:1", "64:1,64:1", "32:1,", "64:1:1", "64.0:1", "6_4:1", "1" + "0" * 30 + ":1",
                "8192:1", "512:1", "64;1"),
    "--kind": ("", "Pixel", "vae"),
    "--data": ("", " ", "nowhere", "file", "pipe", "empty", "small", "one", "texts", "hollow", "torn", "twins",
               "hidden", "nowhere_link", "loop", "x" * 300),
    "--output": ("", " ", "file", "file/below", "pipe", "nowhere_link", "loop", "loop/below", "/dev/null",
                 "/dev/null/below", "x" * 300, "pictures", ".", "/", "outputs/notes", "outputs/hidden_note",
                 "outputs/own_log", "outputs/weights_only", "outputs/log_pipe", "outputs/log_link",
                 "outputs/state_folder", "outputs/vae_file", "outputs/vae_link", "outputs/card_folder",
                 "outputs/config_folder"),
    "--init": ("", "nowhere", "loop", "empty", "pipe", "/dev/zero", "file", "other.safetensors", "torn.safetensors",
               "huge.safetensors", "nan.safetensors", "pictures/coffee.png"),
}  # fmt: skip
OTHERS = (
    ["--sigma-limit", "4"],
    ["--autoencoder", "run/vae"],
    ["--kind", "pixel", "--kl-weight", "0.0001"],
    ["--kind", "pixel", "--autoencoder", "run/vae"],
    ["--kind", "pixel", "--sigma-limit", "0"],
    ["--kind", "pixel", "--sigma-limit", "inf"],
    ["--kind", "latent"],
    ["--kind", "latent", "--autoencoder", "run/vae", "--kl-weight", "1"],
    *(["--kind", "latent", "--autoencoder", name] for name in (
        "", "nowhere", "loop", "file", "pipe", "empty", "run", "pictures", "vae_nan", "vae_torn", "vae_unscaled",
        "vae_other", "vae_bare", "vae_text", "vae_four", "vae_shallow")),
    ["--output", "run", "--seed", "3"],
    ["--output", "run", "--steps", "5"],
    ["--output", "run", "--init", f"run/vae/{WEIGHTS}"],
    ["--kind", "latent", "--autoencoder", "run/vae", "--output", "run"],
    ["--crops", "64:1", "--data", "one"],
    ["--step", "3"],
    ["further"],
    ["--steps"],
)  # fmt: skip
CASES = [[flag, value] for flag, values in NUMBERS.items() for value in values] + [list(case) for case in OTHERS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case)[:60].encode("ascii", "replace").decode())
def test_an_odd_invocation_is_refused(
    case: list[str],
    place: Path,
    short_run: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    before = everything(place)
    arguments = [*short_run(Path("new")), "--data", "pictures", *case]
    try:
        status = command.main(arguments)
    except SystemExit as left:  # argparse
        status = int(str(left.code))
    error = capfd.readouterr().err
    assert (status, len(error.splitlines())) == (2, 1), error
    assert error.startswith("train: ") and len(error) < 600
    assert everything(place) == before
