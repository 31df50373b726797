"""Models in folders as diffusers saves them: a U-Net alone or in `unet`, with `vae` or `vqvae`, `text_encoder`, ..."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from operators.validation import short
from pag_inverse.priors.base import Prior
from pag_inverse.priors.checkpoints.components import Components, takes_prompt
from pag_inverse.priors.checkpoints.construction import (
    DIFFUSERS,
    build_network,
    check_depth,
    check_settings,
    read_weights,
)
from pag_inverse.priors.checkpoints.scheduler import betas_of, prediction_of
from pag_inverse.priors.checkpoints.text_encoder import folder_text_encoder
from pag_inverse.schedule import BETAS, Floats
from pag_inverse.settings.files import read_json


def load_folder(
    path: Path, prediction: str | None, betas: Floats | None = None, image_size: int | None = None
) -> Prior:
    """The prior in a diffusers folder; `betas` and `image_size` are used where its settings do not say.

    Without a scheduler in the folder and without `betas`: linear betas for pixels, Stable Diffusion's for latents.
    """
    found = _chain(path, prediction)
    autoencoders = [path / name for name in ("vae", "vqvae") if os.path.isdir(path / name)]
    vae = load_autoencoder(autoencoders[0]) if autoencoders else None
    inner = path / "unet" if os.path.isdir(path / "unet") or vae is not None else path
    unet = load_model(inner, "UNet2DModel", *(["UNet2DConditionModel"] if vae is not None else []))
    if found is None:
        default = BETAS["linear" if vae is None else "scaled_linear"]()
        found = (default if betas is None else betas), prediction or _prediction(path, unet)
    text = folder_text_encoder(path) if takes_prompt(unet) else None
    return Components(str(path), unet, vae, *found, text=text, image_size=image_size).prior()


def load_model(folder: Path, *kinds: str) -> Any:
    """One diffusers model of a folder (config.json and weights), every key in its place; float32."""
    config = read_json(folder / "config.json")
    name = config.get("_class_name")
    if name not in kinds:
        raise ValueError(f"{folder} holds a {short(name)}; a {' or '.join(kinds)} belongs here")
    import diffusers

    kind = getattr(diffusers, str(name))
    settings = check_settings(config, kind, str(folder / "config.json"))
    state = read_weights(folder, DIFFUSERS)
    check_depth(settings, state, str(folder))
    return build_network(lambda: kind(**settings), state, str(folder))


def load_autoencoder(folder: Path) -> Any:
    """An AutoencoderKL, or a VQModel: where such a one's config names no scale its latents are not scaled."""
    vae = load_model(folder, "AutoencoderKL", "VQModel")
    if type(vae).__name__ == "VQModel" and "scaling_factor" not in read_json(folder / "config.json"):
        vae.register_to_config(scaling_factor=1.0)  # ldm-celebahq-256, not diffusers' later default of 0.18215
    return vae


def _chain(folder: Path, prediction: str | None) -> tuple[Floats, str] | None:
    """The betas and the prediction of the folder's scheduler, which may lie beside the network; None without one."""
    for file in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if os.path.lexists(file):
            config = read_json(file, infinite=True)
            return betas_of(config, str(file)), prediction_of(config, str(file), prediction)
    return None


def _prediction(folder: Path, unet: Any) -> str:
    if not takes_prompt(unet):
        return "epsilon"
    from pag_inverse.priors.checkpoints.stable_diffusion import stable_diffusion_prediction

    return stable_diffusion_prediction(folder, unet.config.use_linear_projection)
