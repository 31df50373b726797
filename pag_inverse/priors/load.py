"""From a name or a path to a prior."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from pag_inverse.priors.base import Prior
from pag_inverse.priors.checkpoints import files as checkpoints
from pag_inverse.priors.latent import LatentPrior
from pag_inverse.priors.pixel import PixelPrior
from pag_inverse.priors.precision import check_compiler, place, precision_dtype, spare_memory
from pag_inverse.priors.quantised import QuantisedLatentPrior
from pag_inverse.schedule import BETAS, Floats
from pag_inverse.settings import PREDICTIONS, PRIORS, BetaConfig, PriorConfig, check_choice, load_prior_config

EMBEDDED = Path(__file__).parent
TORCH_FILES = (".pt", ".pth", ".ckpt", ".safetensors")


def load_prior(
    name: str | os.PathLike[str],
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    config: str | os.PathLike[str] | None = None,
    prediction: str | None = None,
    device: str = "cpu",
    precision: str = "float32",
    compile: bool = False,
    channels_last: bool = False,
    low_memory: bool = False,
) -> Prior:
    """Load a prior: an embedded one (`pixel`, `latent`), a published one (`ffhq`, `imagenet`, `sd15`), or a path.

    A path is an OpenAI-ADM state dict (`config`: a JSON or YAML of ADM's arguments where its heads are not 64 wide),
    Stable Diffusion 1.x or 2.x in one `.safetensors` or `.ckpt` (`config`: its original YAML), or a diffusers folder:
    a UNet2DModel alone or in `unet`, or `unet` and `vae` or `vqvae`, with `text_encoder` for Stable Diffusion.
    `prediction`, `epsilon` or `v_prediction`, is needed where neither a scheduler's nor an original config tells it:
    both kinds of Stable Diffusion 2.x look alike.

    Published files are looked for in `weights_dir` or the folder that PAG_INVERSE_WEIGHTS names, then in the hub's
    cache; nothing is fetched unless `download`. `precision` of the networks: float32, bfloat16 or float16; states,
    losses and gradients are float32 in each. `compile` them with torch.compile, lay their tensors out with
    `channels_last`, or compute activations again in the backward pass with `low_memory`: the same results up to
    rounding. ValueError names what is missing or wrong.
    """
    dtype = precision_dtype(precision)
    if compile:
        check_compiler(device)
    config = Path(config) if config is not None else None
    known = load_prior_config(str(name)) if str(name) in PRIORS else None
    check_choice("prediction", prediction or PREDICTIONS[0], PREDICTIONS)
    path = find_weights(known, weights_dir, download) if known else Path(name)
    if not path.exists():
        raise ValueError(f"unknown prior {str(name)!r}; there are {', '.join(PRIORS)}, or the path of a checkpoint")
    prior = _load_path(path, known, config, prediction)
    prior.source = path
    prior.name = known.name if known else path.stem
    for network in prior.networks():
        place(network, device, dtype, channels_last)
        if low_memory:
            spare_memory(network)
    prior.compiled = compile
    return prior


def prompt_of(prior: Prior, prompt: str) -> Tensor:
    """The embedding of a prompt by the text encoder that lies beside a prior's networks; ValueError where none does."""
    if prior.source is None:
        raise ValueError(f"prior {prior.name} was not loaded from a folder, so it has no text encoder")
    if prior.source.is_file():
        raise ValueError(f"{prior.source} holds no tokenizer, which a prompt needs; a diffusers folder does")
    return checkpoints.prompt_embedding(prior.source, prompt).to(prior.device)


def find_weights(config: PriorConfig, weights_dir: str | os.PathLike[str] | None, download: bool) -> Path:
    """Where the weights of a named prior lie on this machine; ValueError says where to get what is missing."""
    if config.hub_repo is None:
        return EMBEDDED / config.files[0]
    folder = weights_dir or os.environ.get("PAG_INVERSE_WEIGHTS")
    if folder is not None:
        for file in config.files:
            if (Path(folder) / file).exists():
                return Path(folder) / file
    cached = _from_hub(config, download)
    if cached is not None:
        return cached
    looked = f"in {folder}" if folder else "(neither --weights-dir nor PAG_INVERSE_WEIGHTS is set)"
    raise ValueError(
        f"prior {config.name}: no {' or '.join(config.files)} {looked}; it is {config.hub_repo}"
        f"{f', file {config.hub_file},' if config.hub_file else ''} on the hub ({config.size_mb:.0f} MB): "
        f"put it there, or give --download"
    )


def _from_hub(config: PriorConfig, download: bool) -> Path | None:
    """The hub's copy of the weights: from its cache, or fetched where `download` says so."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError

    assert config.hub_repo is not None
    try:
        if config.hub_file:
            return Path(hf_hub_download(config.hub_repo, config.hub_file, local_files_only=not download))
        parts = ["unet/*", "vae/*", "text_encoder/*", "tokenizer/*", "scheduler/*"]
        ignored = ["*.bin", "*.fp16.*", "*non_ema*"]
        return Path(
            snapshot_download(
                config.hub_repo, allow_patterns=parts, ignore_patterns=ignored, local_files_only=not download
            )
        )
    except LocalEntryNotFoundError as error:
        if download:
            raise ValueError(
                f"prior {config.name}: {config.hub_repo} cannot be fetched: the hub is out of reach"
            ) from error
        return None
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"prior {config.name}: {config.hub_repo} cannot be fetched: {checkpoints.first_line(error)}"
        ) from error


def _load_path(path: Path, known: PriorConfig | None, config: Path | None, prediction: str | None) -> Prior:
    if path.is_file():
        if path.suffix not in TORCH_FILES:
            raise ValueError(f"{path} is no checkpoint; it should end in {', '.join(TORCH_FILES)}")
        from pag_inverse.priors.checkpoints import stable_diffusion as single_file

        state = checkpoints.load_state(path)
        if single_file.is_latent_diffusion(state):
            return single_file.load_stable_diffusion(path, state, config, prediction)
        unet, image_size = checkpoints.load_adm(
            path, state, head_channels=(known and known.head_channels) or 64, config=config
        )
        predicted = prediction or "epsilon"
        return PixelPrior(unet, _betas(known, "linear"), image_size=image_size, prediction=predicted)
    predicted = checkpoints.read_prediction(path, prediction) or "epsilon"
    for autoencoder in ("vae", "vqvae"):
        if (path / autoencoder).is_dir():
            return _load_latent(path, path / autoencoder, known, prediction)
    folder = path / "unet" if (path / "unet").is_dir() else path
    unet = checkpoints.load_model(folder, "UNet2DModel")
    betas = checkpoints.read_betas(path, _betas(known, "linear"))
    return PixelPrior(unet, betas, image_size=unet.config.sample_size or 256, prediction=predicted)


def _load_latent(path: Path, autoencoder: Path, known: PriorConfig | None, prediction: str | None) -> LatentPrior:
    unet = checkpoints.load_model(path / "unet", "UNet2DModel", "UNet2DConditionModel")
    vae = load_autoencoder(autoencoder)
    prompted = type(unet).__name__ == "UNet2DConditionModel"
    predicted = checkpoints.read_prediction(path, prediction)
    if predicted is None:
        from pag_inverse.priors.checkpoints import stable_diffusion as single_file

        predicted = single_file.stable_diffusion_prediction(path, unet) if prompted else "epsilon"
    empty = checkpoints.empty_prompt_embedding(path) if prompted else None
    betas = checkpoints.read_betas(path, _betas(known, "scaled_linear"))
    size = (
        known.image_size if known else (unet.config.sample_size or 64) * 2 ** (len(vae.config.block_out_channels) - 1)
    )
    kind = QuantisedLatentPrior if type(vae).__name__ == "VQModel" else LatentPrior
    return kind(unet, vae, betas, empty=empty, image_size=size, prediction=predicted)


def load_autoencoder(folder: Path) -> Any:
    """An AutoencoderKL, or a VQModel: where such a one's config names no scale its latents are not scaled."""
    vae = checkpoints.load_model(folder, "AutoencoderKL", "VQModel")
    if type(vae).__name__ == "VQModel" and "scaling_factor" not in checkpoints.read_json(folder / "config.json"):
        vae.register_to_config(scaling_factor=1.0)  # ldm-celebahq-256, not diffusers' later default of 0.18215
    return vae


def _betas(known: PriorConfig | None, schedule: str) -> Floats:
    config = known.betas if known else None
    if isinstance(config, BetaConfig):
        return BETAS[config.schedule](config.start, config.end)
    return BETAS[schedule]()
