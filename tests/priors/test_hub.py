"""Where the weights of published priors are looked for; nothing is fetched unless it is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import LocalEntryNotFoundError

from pag_inverse import load_prior
from pag_inverse.priors.checkpoints.hub import find_weights
from pag_inverse.settings import load_prior_config


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the hub is asked for; it has nothing in its cache and is out of reach."""
    calls: list[dict[str, Any]] = []

    def none(*args: Any, **options: Any) -> str:
        calls.append(options)
        raise LocalEntryNotFoundError("nothing here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", none)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", none)
    monkeypatch.delenv("PAG_INVERSE_WEIGHTS", raising=False)
    return calls


def test_a_file_in_a_folder(
    asked: list[dict[str, Any]], adm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under any of its names; the folder that is given goes before the environment's."""
    shutil.copy(adm_checkpoint, tmp_path / "diffusion_ffhq_10m.pt")
    prior = load_prior("ffhq", weights_dir=tmp_path, config=adm_checkpoint.parent / "config.json")
    assert (prior.name, prior.dataset, prior.image_size) == ("ffhq", "ffhq", 64)
    assert prior.source == tmp_path / "diffusion_ffhq_10m.pt"
    monkeypatch.setenv("PAG_INVERSE_WEIGHTS", str(tmp_path))
    assert find_weights(load_prior_config("ffhq"), None, False) == tmp_path / "diffusion_ffhq_10m.pt"
    (tmp_path / "first").mkdir()
    shutil.copy(adm_checkpoint, tmp_path / "first" / "ffhq_10m.pt")
    assert find_weights(load_prior_config("ffhq"), tmp_path / "first", False).name == "ffhq_10m.pt"
    assert asked == []


@pytest.mark.parametrize("name", ["ffhq", "imagenet", "sd15"])
def test_weights_that_are_nowhere(name: str, asked: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"prior {name}: no .* in {tmp_path}; it is .* on the hub .* --download"):
        load_prior(name, weights_dir=tmp_path)
    with pytest.raises(ValueError, match="neither --weights-dir nor PAG_INVERSE_WEIGHTS is set"):
        load_prior(name)
    assert [call["local_files_only"] for call in asked] == [True, True]
    with pytest.raises(ValueError, match="cannot be fetched: the hub is out of reach") as error:
        load_prior(name, download=True)
    assert asked[-1]["local_files_only"] is False and "\n" not in str(error.value)


def test_weights_that_no_hub_holds(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no 256x256_diffusion.pt in {tmp_path}; it is .*guided-diffusion .* put it"):
        load_prior("imagenet_conditional", weights_dir=tmp_path, class_conditional=True)
    assert asked == []


def test_a_name_that_is_none(asked: list[dict[str, Any]]) -> None:
    with pytest.raises(
        ValueError, match=r"unknown prior 'fhq'; there are ffhq, imagenet, imagenet_conditional, latent,"
    ):
        load_prior("fhq")
    assert asked == []
