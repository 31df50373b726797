"""What a prior was trained for, told from its files without reading any weights: a side, and its kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from operators.validation import check_whole, short
from pag_inverse.priors.checkpoints.files import names_in
from pag_inverse.settings import PRIORS, Kind, load_prior_config
from pag_inverse.settings.files import read_json

DEFAULT, STABLE_DIFFUSION, LARGEST_SIDE = 256, 512, 2**16
AUTOENCODERS = ("vae", "vqvae")  # folders of diffusers
AUTOENCODER = b"first_stage_model."  # in the names of a latent diffusion model's weights


def picture_side(prior: str) -> int:
    """The side in pixels; 256 where the files do not tell it."""
    if prior in PRIORS:
        return load_prior_config(prior).image_size
    path = Path(prior)
    if not os.path.isdir(path):
        try:
            return STABLE_DIFFUSION if AUTOENCODER in names_in(path) else DEFAULT
        except Exception:  # whatever reads bytes that are not a checkpoint's; loading says what is wrong
            return DEFAULT
    inner = path / "unet" if os.path.isdir(path / "unet") else path
    autoencoders = [_settings(path / name) for name in AUTOENCODERS if os.path.isdir(path / name)]
    widths = autoencoders[0].get("block_out_channels") if autoencoders else None
    factor = 2 ** min(len(widths) - 1, 16) if isinstance(widths, list) and widths else 1
    try:
        return factor * largest_side(prior, _settings(inner).get("sample_size"), 64 if autoencoders else DEFAULT)
    except ValueError:
        return DEFAULT


def prior_kind(prior: str) -> Kind:
    """Whether the state of a prior is the image or a latent; `pixel` where the files do not tell it."""
    if prior in PRIORS:
        return load_prior_config(prior).kind
    path = Path(prior)
    if os.path.isdir(path):
        return "latent" if any(os.path.isdir(path / name) for name in AUTOENCODERS) else "pixel"
    try:
        return "latent" if AUTOENCODER in names_in(path) else "pixel"
    except Exception:  # as above
        return "pixel"


def largest_side(where: str, sample_size: object, default: int, multiple: int = 1) -> int:
    """The larger side of a U-Net's samples, whose settings have a number, two of them, or none.

    ValueError, which begins with `where`, unless each is a multiple of `multiple` up to LARGEST_SIDE.
    """
    where = f"{where}: sample_size of the U-Net"
    given = default if sample_size is None else sample_size
    sides = given if isinstance(given, (list, tuple)) and given else [given]
    found = [check_whole(where, side, multiple, LARGEST_SIDE) for side in sides]
    if any(side % multiple for side in found):
        raise ValueError(f"{where} is {short(given)}; it must be a multiple of {multiple}")
    return max(found)


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "config.json")
    except ValueError:
        return {}
