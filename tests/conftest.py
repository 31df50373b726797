"""Recorded runs of the published programs: those under tests/data, and whole ones beside the repository."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores; before torch looks
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file
from torch import Tensor

from pag_inverse.priors import LatentPrior, PixelPrior, Prior, load_prior
from pag_inverse.priors.checkpoints.diffusers_folder import load_model
from pag_inverse.schedule import BETAS, Floats

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


def seeded_weights(shapes: Mapping[str, Sequence[int]], seed: int, gain: Callable[[str], float]) -> dict[str, Tensor]:
    """The weights of a recorded random network, bit for bit: normal numbers n of one generator, in the network's order.

    The scales of norms are 1 + 0.1 n, biases are 0.05 n, other weights gain(name) n / sqrt(fan_in).
    """
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        n = torch.randn(tuple(shape), generator=generator)
        if len(shape) == 1:
            weights[name] = 0.05 * n if name.endswith("bias") else 1 + 0.1 * n
        else:
            weights[name] = n / math.sqrt(n[0].numel()) * gain(name)
    return weights


@pytest.fixture(scope="session")
def adm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random ADM's state dict under the published key names, with its arguments beside it."""
    folder = tmp_path_factory.mktemp("adm")
    shapes = json.loads((DATA / "adm_unet" / "ffhq_like_shapes.json").read_text())
    torch.save(seeded_weights(shapes, 1001, lambda name: 1.5 if "qkv" in name else 1.0), folder / "ffhq_like.pt")
    shutil.copy(DATA / "adm_unet" / "ffhq_like_config.json", folder / "config.json")
    return folder / "ffhq_like.pt"


@pytest.fixture(scope="session")
def adm(adm_checkpoint: Path) -> PixelPrior:
    prior = load_prior(adm_checkpoint, config=adm_checkpoint.parent / "config.json")
    assert isinstance(prior, PixelPrior)
    return prior


@pytest.fixture(scope="session")
def adm_trained(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> PixelPrior:
    """The same ADM after some training."""
    checkpoint = tmp_path_factory.mktemp("adm_trained") / "ffhq_like_trained.pt"
    weights = recordings.load("adm_unet/ffhq_like_trained_weights.npz", DATA)
    torch.save(weights, checkpoint)
    prior = load_prior(checkpoint, config=recordings.path("adm_unet/ffhq_like_config.json"))
    assert isinstance(prior, PixelPrior)
    return prior


def tiny_sd_gain(name: str) -> float:
    if "to_q" in name or "to_k" in name:
        return 2.0
    return {"quant_conv.weight": 0.5, "decoder.conv_out.weight": 0.8}.get(name, 1.0)


@pytest.fixture(scope="session")
def tiny_sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random U-Net and VAE in the layout of Stable Diffusion."""
    folder = tmp_path_factory.mktemp("tiny_sd")
    for part, kind, seed in (("unet", UNet2DConditionModel, 3001), ("vae", AutoencoderKL, 3002)):
        (folder / part).mkdir()
        shutil.copy(DATA / "tiny_sd" / f"{part}.json", folder / part / "config.json")
        with torch.device("meta"):
            network = kind.from_config(json.loads((folder / part / "config.json").read_text()))
        shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        weights = seeded_weights(shapes, seed, tiny_sd_gain)
        if part == "vae":  # its latents have large means and a posterior variance of e^-2
            weights["quant_conv.weight"][:4] *= 10
            weights["quant_conv.bias"][4:] -= 2
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


class GaussianPrior(Prior):
    """N(mean, std^2) on every pixel: its eps is known, and so is the posterior of any inpainting."""

    def __init__(self, mean: float, std: float, betas: Floats) -> None:
        self.mean, self.std, self.betas, self.name = mean, std, betas, "gaussian"
        self.unet = SimpleNamespace(config=SimpleNamespace(in_channels=3))
        self.compiled = False
        self.abar = np.cumprod(1 - betas)

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        return image_shape

    def decode(self, z: Tensor) -> Tensor:
        return z

    def encode(self, x: Tensor, draw: object = None) -> Tensor:
        return x

    def _run(self, network: object, z: Tensor, t: int, condition: Tensor | None) -> Tensor:
        a = float(self.abar[t])
        return (1 - a) ** 0.5 * (z - a**0.5 * self.mean) / (a * self.std**2 + 1 - a)


@pytest.fixture(scope="session")
def gaussian() -> Callable[[float, float], GaussianPrior]:
    """Makes a `GaussianPrior` of a mean and a standard deviation."""
    return lambda mean, std: GaussianPrior(mean, std, BETAS["linear"]())
