"""The side of the pictures that a prior was trained for, told from its files without reading any weights."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

from pag_inverse.settings import PRIORS, load_prior_config

DEFAULT, STABLE_DIFFUSION = 256, 512
AUTOENCODER = b"first_stage_model."  # in the names of a latent diffusion model's weights
_LONGEST_HEADER = 2**25


def picture_side(prior: str) -> int:
    """The side in pixels; 256 where the files do not tell it."""
    if prior in PRIORS:
        return load_prior_config(prior).image_size
    path = Path(prior)
    if path.is_file():
        return STABLE_DIFFUSION if AUTOENCODER in _names(path) else DEFAULT
    inner = path / "unet" if (path / "unet").is_dir() else path
    side = _settings(inner).get("sample_size")
    side = max(side) if isinstance(side, list) and side else side
    if not isinstance(side, int):
        return DEFAULT
    autoencoders = [found for name in ("vae", "vqvae") if (found := _settings(path / name))]
    return side * 2 ** (len(autoencoders[0].get("block_out_channels", [0])) - 1) if autoencoders else side


def _names(path: Path) -> bytes:
    """The part of a checkpoint in which the names of its tensors stand; nothing where it is damaged."""
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                return file.read(min(length, _LONGEST_HEADER))
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return archive.read(names[0]) if names else b""
    except (OSError, struct.error, zipfile.BadZipFile):
        return b""


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
