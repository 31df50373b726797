"""What is drawn of a network in training."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
import torch

from pag_inverse.training import networks
from pag_inverse.training.preview import draw_preview


@pytest.mark.parametrize("kind", ["pixel", "latent", "autoencoder"])
def test_a_preview_shows_restorations_and_samples(kind: str, photographs: Path, tmp_path: Path) -> None:
    vae = networks.autoencoder()
    vae.save_pretrained(tmp_path / "vae")
    model = {"pixel": networks.pixel_unet, "latent": networks.latent_unet, "autoencoder": lambda: vae}[kind]()
    files, before = sorted(photographs.iterdir()), {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        gains = draw_preview(model, kind, tmp_path / "vae", files, tmp_path / "preview.png", steps=2)
    picture = PIL.Image.open(tmp_path / "preview.png")
    assert picture.size == ((256, 256) if kind == "autoencoder" else (768, 256))
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(gains) == (set() if kind == "autoencoder" else {"gaussian_deblur", "super_resolution"})
