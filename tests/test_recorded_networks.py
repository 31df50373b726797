"""The small random networks of the recorded runs are built from their seeds: the recorded weights, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor


def same(found: dict[str, Tensor], recorded: dict[str, Tensor]) -> bool:
    return found.keys() == recorded.keys() and all(torch.equal(found[name], recorded[name]) for name in recorded)


def test_adm(adm_checkpoint: Path, recordings) -> None:
    recorded = torch.load(recordings.path("adm_unet/ffhq_like.pt"), weights_only=True)
    assert same(torch.load(adm_checkpoint, weights_only=True), recorded)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_tiny_stable_diffusion(part: str, tiny_sd_folder: Path, recordings) -> None:
    name = f"{part}/diffusion_pytorch_model.safetensors"
    assert same(load_file(tiny_sd_folder / name), load_file(recordings.path(f"tiny_sd/{name}")))
