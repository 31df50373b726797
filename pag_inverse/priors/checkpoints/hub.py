"""Where the weights of a named prior lie on this machine: in the package, in a folder, or in the hub's cache."""

from __future__ import annotations

import os
from pathlib import Path

from pag_inverse.priors.checkpoints.files import one_line
from pag_inverse.settings import PriorConfig

PACKAGE = Path(__file__).parents[1]  # the embedded weights lie in it


def find_weights(config: PriorConfig, weights_dir: str | os.PathLike[str] | None, download: bool) -> Path:
    """The file or folder with the weights of a named prior; ValueError says where to get what is missing."""
    if config.embedded:
        return PACKAGE / config.files[0]
    folder = weights_dir or os.environ.get("PAG_INVERSE_WEIGHTS")
    if folder is not None:
        for file in config.files:
            if os.path.exists(Path(folder) / file):
                return Path(folder) / file
    cached = _from_hub(config, config.hub_repo, download) if config.hub_repo else None
    if cached is not None:
        return cached
    looked = f"in {folder}" if folder else "(neither --weights-dir nor PAG_INVERSE_WEIGHTS is set)"
    missing = f"prior {config.name}: no {' or '.join(config.files)} {looked}"
    if config.hub_repo is None:
        raise ValueError(f"{missing}; it is {config.source} ({config.size_mb:.0f} MB): put it there")
    raise ValueError(
        f"{missing}; it is {config.hub_repo}"
        f"{f', file {config.hub_file},' if config.hub_file else ''} on the hub ({config.size_mb:.0f} MB): "
        f"put it there, or give --download"
    )


def _from_hub(config: PriorConfig, repo: str, download: bool) -> Path | None:
    """The hub's copy of the weights: from its cache, or fetched where `download` says so."""
    from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return _fetch(repo, config.hub_file, local_files_only=not download)
    except LocalEntryNotFoundError as error:
        if download:
            raise ValueError(f"prior {config.name}: {repo} cannot be fetched: the hub is out of reach") from error
        return None
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"prior {config.name}: {repo} cannot be fetched: {one_line(error)}") from error


def _fetch(repo: str, file: str | None, local_files_only: bool) -> Path:
    """One file of a repository, or the folders of Stable Diffusion's components."""
    from huggingface_hub import hf_hub_download, snapshot_download

    if file:
        return Path(hf_hub_download(repo, file, local_files_only=local_files_only))
    parts = ["unet/*", "vae/*", "text_encoder/*", "tokenizer/*", "scheduler/*"]
    ignored = ["*.bin", "*.fp16.*", "*non_ema*"]
    found = snapshot_download(repo, allow_patterns=parts, ignore_patterns=ignored, local_files_only=local_files_only)
    return Path(found)
