"""Where a run starts from: its network, weights of an earlier one, and the autoencoder of a latent prior."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pag_inverse.priors.checkpoints.components import Components
from pag_inverse.priors.checkpoints.diffusers_folder import load_autoencoder
from pag_inverse.schedule import Floats
from pag_inverse.settings.files import check_file
from pag_inverse.training import networks
from pag_inverse.training.objectives import Encode
from pag_inverse.training.settings import TrainSettings
from pag_inverse.training.state import all_finite

NETWORKS: dict[str, Callable[[], Any]] = {
    "pixel": networks.pixel_unet,
    "autoencoder": networks.autoencoder,
    "latent": networks.latent_unet,
}
_LARGEST = 2**34  # bytes of a file of weights


def make_network(settings: TrainSettings) -> nn.Module:
    """The network of a kind, with weights that depend on the seed alone, or those of `init`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model: nn.Module = NETWORKS[settings.kind]()
    if settings.init is not None:
        load_init(model, Path(settings.init))
    return model


def load_init(model: nn.Module, path: Path) -> None:
    """Load the weights of a safetensors file; ValueError where they cannot be read, or are another network's."""
    weights, own = _read(path), model.state_dict()
    shapes = [{key: tuple(tensor.shape) for key, tensor in held.items()} for held in (weights, own)]
    other = sorted({key for key, _ in shapes[0].items() ^ shapes[1].items()})
    if other:
        raise ValueError(
            f"--init {path} holds another network: {len(other)} tensors are missing, extra or of another shape, "
            f"the first {other[0]}"
        )
    weights = {key: value.float() for key, value in weights.items()}
    if not all_finite(weights):
        raise ValueError(f"--init {path} holds NaN or Inf; give other weights")
    model.load_state_dict(weights)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_file(path, _LARGEST)
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"--init {path} cannot be read as safetensors: {error}") from error


def latent_encoder(folder: Path, unet: Any, betas: Floats, device: torch.device) -> Encode:
    """A function (x, generator) -> scaled latents drawn from the frozen autoencoder's posterior.

    ValueError where the folder holds no autoencoder, or one that the U-Net cannot be a prior with.
    """
    vae = load_autoencoder(folder).requires_grad_(False).to(device)
    _check_autoencoder(folder, vae)
    Components(str(folder), unet, vae, betas, "epsilon").prior()

    @torch.no_grad()
    def encode(x: Tensor, generator: torch.Generator) -> Tensor:
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(x)
        return ((posterior.mean + posterior.std * noise) * vae.config.scaling_factor).float()

    return encode


def _check_autoencoder(folder: Path, vae: Any) -> None:
    """ValueError where latents are not drawn, scaled and reduced as the U-Net needs them."""
    if type(vae).__name__ != "AutoencoderKL":
        raise ValueError(f"--autoencoder {folder} holds a {type(vae).__name__}; an AutoencoderKL is needed")
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if factor != networks.DOWNSAMPLING:
        raise ValueError(f"--autoencoder {folder} reduces the side {factor} times; {networks.DOWNSAMPLING} is needed")
    scale = vae.config.scaling_factor
    if not isinstance(scale, (int, float)) or not 1e-4 <= scale <= 1e4:
        raise ValueError(f"--autoencoder {folder} has a scaling_factor of {scale!r}; from 0.0001 to 10000 is a scale")
    if not all_finite(vae.state_dict()):
        raise ValueError(f"--autoencoder {folder} holds NaN or Inf; give another one")
