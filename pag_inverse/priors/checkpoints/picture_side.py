"""The side of the pictures that a prior was trained for, told from its files without reading any weights."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from operators.validation import check_whole, short
from pag_inverse.priors.checkpoints.files import torch_pickle
from pag_inverse.settings import PRIORS, load_prior_config
from pag_inverse.settings.files import check_file, read_json

DEFAULT, STABLE_DIFFUSION, LARGEST_SIDE = 256, 512, 2**16
AUTOENCODER = b"first_stage_model."  # in the names of a latent diffusion model's weights
_LONGEST_HEADER = 2**25


def picture_side(prior: str) -> int:
    """The side in pixels; 256 where the files do not tell it."""
    if prior in PRIORS:
        return load_prior_config(prior).image_size
    path = Path(prior)
    if not os.path.isdir(path):
        return STABLE_DIFFUSION if AUTOENCODER in _names(path) else DEFAULT
    inner = path / "unet" if os.path.isdir(path / "unet") else path
    autoencoders = [_settings(path / name) for name in ("vae", "vqvae") if os.path.isdir(path / name)]
    widths = autoencoders[0].get("block_out_channels") if autoencoders else None
    factor = 2 ** min(len(widths) - 1, 16) if isinstance(widths, list) and widths else 1
    try:
        return factor * largest_side(_settings(inner).get("sample_size"), 64 if autoencoders else DEFAULT)
    except ValueError:
        return DEFAULT


def largest_side(sample_size: object, default: int, multiple: int = 1) -> int:
    """The larger side of a U-Net's samples, whose settings have a number, two of them, or none; ValueError otherwise.

    Each must be a multiple of `multiple`.
    """
    given = default if sample_size is None else sample_size
    sides = given if isinstance(given, (list, tuple)) and given else [given]
    found = [check_whole("sample_size of the U-Net", side, multiple, LARGEST_SIDE) for side in sides]
    if any(side % multiple for side in found):
        raise ValueError(f"sample_size of the U-Net is {short(given)}; it must be a multiple of {multiple}")
    return max(found)


def _names(path: Path) -> bytes:
    """The part of a checkpoint in which the names of its tensors stand; nothing where it is damaged."""
    try:
        if path.suffix != ".safetensors":
            return torch_pickle(path)
        check_file(path)
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return file.read(min(length, _LONGEST_HEADER))
    except Exception:  # zipfile and struct raise anything on bytes that are not theirs; loading says what is wrong
        return b""


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "config.json")
    except ValueError:
        return {}
