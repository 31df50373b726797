"""Recorded runs of the published programs: those under tests/data, and further ones beside the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from safetensors.torch import save_file
from torch import Tensor

from pag_inverse.priors import LatentPrior, PixelPrior, load_prior
from pag_inverse.priors.checkpoints.files import load_model
from pag_inverse.schedule import BETAS

DATA = Path(__file__).parent / "data"
FURTHER = Path(__file__).resolve().parents[2] / "shared" / "golden"


class Recordings:
    """Recorded arrays by relative name; a name that is nowhere skips the test and says so."""

    def path(self, name: str) -> Path:
        for folder in (FURTHER, DATA):
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"recording {name} does not come with the repository")

    def load(self, name: str, folder: Path | None = None) -> dict[str, Tensor]:
        with np.load(folder / name if folder else self.path(name)) as file:
            return {key: torch.from_numpy(np.array(file[key])) for key in file.files}


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    return Recordings()


@pytest.fixture(scope="session")
def adm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ADM's state dict under the published key names, with its arguments beside it."""
    folder = tmp_path_factory.mktemp("adm")
    with np.load(DATA / "adm_unet" / "ffhq_like_trained_weights.npz") as file:
        torch.save({k: torch.from_numpy(file[k]) for k in file.files}, folder / "trained.pt")
    shutil.copy(DATA / "adm_unet" / "ffhq_like_config.json", folder / "config.json")
    return folder / "trained.pt"


@pytest.fixture(scope="session")
def adm(adm_checkpoint: Path) -> PixelPrior:
    prior = load_prior(adm_checkpoint, config=adm_checkpoint.parent / "config.json")
    assert isinstance(prior, PixelPrior)
    return prior


@pytest.fixture(scope="session")
def tiny_sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny U-Net and VAE in the layout of Stable Diffusion."""
    folder = tmp_path_factory.mktemp("tiny_sd")
    for part in ("unet", "vae"):
        (folder / part).mkdir()
        shutil.copy(DATA / "tiny_sd" / f"{part}.json", folder / part / "config.json")
        with np.load(DATA / "tiny_sd" / f"{part}.npz") as file:
            weights = {k: torch.from_numpy(file[k]) for k in file.files}
        save_file(weights, folder / part / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def tiny_sd(tiny_sd_folder: Path, recordings: Recordings) -> LatentPrior:
    unet = load_model(tiny_sd_folder / "unet", "UNet2DConditionModel")
    vae = load_model(tiny_sd_folder / "vae", "AutoencoderKL")
    context = recordings.load("psld_trajectory/common.npz")["context"]
    return LatentPrior(unet, vae, BETAS["scaled_linear"](), empty=context, image_size=128)


def small_unet(channels: int) -> UNet2DModel:
    return UNet2DModel(
        sample_size=32,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


@pytest.fixture(scope="session")
def pixel() -> PixelPrior:
    """A random pixel prior for pictures of even sides."""
    torch.manual_seed(0)
    return PixelPrior(small_unet(3), BETAS["linear"]())


@pytest.fixture(scope="session")
def latent() -> LatentPrior:
    """A random latent prior, four channels at half the side."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
    )
    return LatentPrior(small_unet(4), vae, BETAS["scaled_linear"]())
