"""A run is what went into it: contents, not names and paths."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pag_inverse.cli import train as command
from pag_inverse.training.run import train
from pag_inverse.training.settings import RunOptions, TrainSettings

Arguments = Callable[..., list[str]]
WEIGHTS = Path("vae") / "diffusion_pytorch_model.safetensors"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line on stderr of a command that is refused."""
    capsys.readouterr()
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


def replace(pictures: Path) -> None:
    shutil.copy(pictures / "coffee.png", pictures / "chelsea.png")


def remove(pictures: Path) -> None:
    (pictures / "coffee.png").unlink()


def add(pictures: Path) -> None:
    shutil.copy(pictures / "coffee.png", pictures / "zebra.png")


@pytest.mark.parametrize(
    ("change", "told"),
    [(replace, "chelsea.png has changed"), (remove, "coffee.png is missing"), (add, "zebra.png is new")],
)
def test_other_pictures_under_the_same_name_are_refused(
    change: Callable[[Path], None],
    told: str,
    pictures: Path,
    run: Path,
    short_run: Arguments,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (run / "state.pt").read_bytes()
    change(pictures)
    error = refused(short_run(run, "--data", pictures), capsys)
    assert f"other inputs: --data: {told}" in error
    assert (run / "state.pt").read_bytes() == before


def test_the_same_pictures_elsewhere_go_on(pictures: Path, run: Path, short_run: Arguments) -> None:
    assert command.main(short_run(run, "--data", pictures)) == 0


def test_init_is_known_by_its_content(
    finished: Path, tmp_path: Path, short_run: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "on"
    shutil.copy(finished / WEIGHTS, first)
    assert command.main(short_run(output, "--init", first)) == 0
    shutil.copy(first, second)
    assert command.main(short_run(output, "--init", second)) == 0  # another path, the same content
    assert command.main(short_run(tmp_path / "third", "--seed", 5)) == 0
    shutil.copy(tmp_path / "third" / WEIGHTS, first)
    assert "--init: its content has changed" in refused(short_run(output, "--init", first), capsys)
    assert "--init: its content is missing" in refused(short_run(output), capsys)


def test_another_autoencoder_under_the_same_name_is_refused(
    run: Path, tmp_path: Path, short_run: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    latent = short_run(tmp_path / "latent", "--autoencoder", run / "vae", kind="latent", steps=1)
    assert command.main(latent) == 0
    copied = {path.name: path.read_bytes() for path in (tmp_path / "latent" / "vae").iterdir()}
    assert copied == {path.name: path.read_bytes() for path in (run / "vae").iterdir()}
    assert command.main(short_run(tmp_path / "other", "--seed", 5)) == 0
    shutil.copytree(tmp_path / "other" / "vae", run / "vae", dirs_exist_ok=True)
    assert "--autoencoder: " in (error := refused(latent, capsys)) and "safetensors has changed" in error


def test_a_state_of_an_earlier_version_goes_on(pictures: Path, run: Path, short_run: Arguments) -> None:
    """It has no record of inputs: none is compared, and from then on there is one."""
    state = torch.load(run / "state.pt", weights_only=True)
    for name in ("inputs", "processes", "validation"):
        del state[name]
    torch.save(state, run / "state.pt")
    replace(pictures)
    assert command.main(short_run(run, "--data", pictures)) == 0
    assert command.main(short_run(run)) == 2


def test_output_is_never_input(pictures: Path, short_run: Arguments, tmp_path: Path) -> None:
    """Previews in a folder below the pictures, behind links to it and to them, are not trained on."""
    output = pictures / "runs" / "one"
    assert command.main(short_run(output, "--data", pictures)) == 0
    shutil.copy(pictures / "coffee.png", output / "preview_0000002.png")
    shutil.copy(pictures / "coffee.png", output / "other.png")
    (pictures / "link").symlink_to(output)
    (pictures / "aaa.png").symlink_to(output / "preview_0000002.png")
    assert command.main(short_run(output, "--data", pictures)) == 0
    (tmp_path / "elsewhere").symlink_to(output)
    assert command.main(short_run(tmp_path / "elsewhere", "--data", pictures)) == 0


def test_previews_of_another_run_are_not_trained_on(pictures: Path, short_run: Arguments, tmp_path: Path) -> None:
    assert command.main(short_run(pictures / "one", "--data", pictures)) == 0
    assert command.main(short_run(tmp_path / "before", "--data", pictures)) == 0
    shutil.copy(pictures / "coffee.png", pictures / "one" / "preview_0000002.png")
    assert command.main(short_run(tmp_path / "before", "--data", pictures)) == 0


@pytest.mark.parametrize(("output", "data"), [("pictures", "pictures"), ("above", "above/pictures")])
def test_pictures_in_the_output_folder_are_refused(
    output: str, data: str, photographs: Path, tmp_path: Path, short_run: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photographs, tmp_path / data)
    (tmp_path / "link").symlink_to(tmp_path / data)
    for name in (data, "link"):
        assert "is or holds the input" in refused(short_run(tmp_path / output, "--data", tmp_path / name), capsys)
    assert len(list((tmp_path / data).iterdir())) == 4


def test_settings_that_do_nothing_are_refused_in_code_too(photographs: Path, tmp_path: Path) -> None:
    settings = TrainSettings("pixel", ((32, 1.0),), kl_weight=1.0)
    with pytest.raises(ValueError, match="--kl-weight does nothing with --kind pixel"):
        train(settings, RunOptions(photographs, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
