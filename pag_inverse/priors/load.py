"""From a name, a path or an object to a prior."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators.validation import short
from pag_inverse.priors.base import Prior
from pag_inverse.priors.checkpoints.adm import load_adm
from pag_inverse.priors.checkpoints.files import load_state, one_line
from pag_inverse.priors.checkpoints.hub import find_weights
from pag_inverse.priors.latent import LatentPrior
from pag_inverse.priors.networks import network_dtype
from pag_inverse.priors.precision import check_compiler, check_speed, place, precision_dtype, spare_memory
from pag_inverse.runtime.devices import check_device
from pag_inverse.schedule import BETAS, Floats
from pag_inverse.settings import PREDICTIONS, PRIORS, PriorConfig, check_choice, load_prior_config
from pag_inverse.settings.files import check_file

TORCH_FILES = (".pt", ".pth", ".ckpt", ".safetensors")


def load_prior(
    source: Any,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    config: str | os.PathLike[str] | None = None,
    prediction: str | None = None,
    class_conditional: bool = False,
    scheduler: Any = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    compile: bool = False,
    channels_last: bool = False,
    low_memory: bool = False,
) -> Prior:
    """Load a prior: by name (`pixel`, `latent`, `ffhq`, `imagenet`, `sd15`), from a path, or from an object.

    A path is an OpenAI-ADM state dict (`config`: a JSON or YAML of ADM's arguments where its heads are not 64 wide),
    Stable Diffusion 1.x or 2.x in one `.safetensors` or `.ckpt` (`config`: its original YAML), or a diffusers folder:
    a UNet2DModel alone or in `unet`, or `unet` and `vae` or `vqvae`, with `text_encoder` for Stable Diffusion.
    An object is a Prior (returned as it is), a diffusers pipeline (DDPM, DDIM, LDM or Stable Diffusion), a
    UNet2DModel, or a pair (U-Net, autoencoder), with `scheduler`, a scheduler of diffusers, for the last two. The
    prior shares the object's weights and changes nothing of it.

    Published files are looked for in `weights_dir` or the folder that PAG_INVERSE_WEIGHTS names, then in the hub's
    cache; nothing is fetched unless `download`. `prediction`, `epsilon` or `v_prediction`, is needed where neither a
    scheduler nor an original config tells it: both kinds of Stable Diffusion 2.x look alike.

    `class_conditional` also takes an ADM that needs a class label; `sample` alone can use it.

    `device` and `precision` (float32, bfloat16 or float16) of the networks: cpu and float32 for files, those of the
    object otherwise; other ones make a copy of its weights. States, losses and gradients are float32 in each.
    `compile` the networks with torch.compile, lay their tensors out with `channels_last`, or compute activations
    again in the backward pass with `low_memory`: the same results up to rounding. ValueError names what is missing
    or wrong.

    >>> from diffusers import DDPMPipeline, DDPMScheduler
    >>> from pag_inverse import load_prior
    >>> prior = load_prior("pixel")
    >>> prior.image_size, prior.device.type
    (256, 'cpu')
    >>> pipeline = DDPMPipeline(prior.unet, DDPMScheduler(beta_start=1e-4, beta_end=0.02))
    >>> load_prior(pipeline).multiple
    16
    """
    check_choice("prediction", prediction or PREDICTIONS[0], PREDICTIONS)
    dtype = precision_dtype(precision) if precision is not None else None
    device = check_device(device) if device is not None else None
    of_files = {"weights_dir": weights_dir, "download": download, "config": config}
    of_networks = {"compile": compile, "channels_last": channels_last, "low_memory": low_memory}
    if isinstance(source, (str, os.PathLike)):
        check_speed(dtype, device or torch.device("cpu"))
    if isinstance(source, Prior):
        changes = {"prediction": prediction, "scheduler": scheduler, **of_networks}
        _refuse({**of_files, **changes}, f"prior {source.name} is loaded already")
        return _as_it_is(source, device, dtype)
    if compile:
        check_compiler(str(device or "cpu"))
    with torch.inference_mode(False):  # its tensors could not take part in a gradient
        if isinstance(source, (str, os.PathLike)):
            _refuse({"scheduler": scheduler}, f"{os.fspath(source)} is a name or a path, whose scheduler is a file")
            try:
                prior = _from_name(source, weights_dir, download, config, prediction, class_conditional)
            except ValueError as error:  # names of files and what is in them may hold anything
                raise ValueError(one_line(error, 1000)) from error
            device, dtype = device or torch.device("cpu"), dtype or torch.float32
        else:
            from pag_inverse.priors.checkpoints.pipeline import load_objects

            _refuse(of_files, f"a {type(source).__name__} is no file")
            prior = load_objects(source, scheduler, prediction)
        for network in prior.networks():
            check_speed(dtype or network_dtype(network), device or prior.device)
            place(network, device, dtype, channels_last)
            if low_memory:
                spare_memory(network)
    prior.compiled = compile
    return prior


def prompt_of(prior: Prior, prompt: str) -> Tensor:
    """The embedding (1, 77, D) of a prompt by the text encoder that a prior came with; ValueError where none did."""
    return prompt_encoder(prior)(prompt)


def prompt_encoder(prior: Prior) -> Callable[[str], Tensor]:
    """From a prompt to its embedding (1, 77, D), for many prompts: the text encoder is read once; errors as above."""
    if not isinstance(prior, LatentPrior) or prior.empty is None:
        raise ValueError(f"prior {prior.name} takes no prompt")
    if prior.text is None:
        where = prior.source or f"prior {prior.name}"
        raise ValueError(f"{where} holds no tokenizer, which a prompt needs; a diffusers folder or pipeline does")
    text = prior.text.held()
    return lambda prompt: text(prompt).to(prior.device)


def _from_name(
    name: str | os.PathLike[str],
    weights_dir: str | os.PathLike[str] | None,
    download: bool,
    config: str | os.PathLike[str] | None,
    prediction: str | None,
    class_conditional: bool,
) -> Prior:
    """The prior of a name or a path, on the CPU in float32."""
    known = load_prior_config(str(name)) if str(name) in PRIORS else None
    if known is None or known.embedded:
        place = f"{name} is a path" if known is None else f"prior {name} comes with the package"
        _refuse({"weights_dir": weights_dir, "download": download}, place)
    path = find_weights(known, weights_dir, download) if known else Path(name)
    if known is None and not os.path.lexists(path):
        there = f"there are {', '.join(PRIORS)}, or the path of a checkpoint"
        raise ValueError(f"unknown prior {short(str(name))}; {there}")
    if os.path.isdir(path):
        from pag_inverse.priors.checkpoints.diffusers_folder import load_folder

        _refuse({"config": config}, f"{path} is a folder, whose settings are files in it")
        prior = load_folder(path, prediction, _betas(known), known.image_size if known else None)
    else:
        prior = _from_file(path, known, None if config is None else Path(config), prediction, class_conditional)
    prior.source = path
    prior.name = known.name if known else path.stem
    prior.dataset = known.dataset if known else None
    return prior


def _from_file(
    path: Path, known: PriorConfig | None, config: Path | None, prediction: str | None, class_conditional: bool
) -> Prior:
    check_file(path)
    if path.suffix not in TORCH_FILES:
        raise ValueError(f"{path} is no checkpoint; it should end in {', '.join(TORCH_FILES)}")
    from pag_inverse.priors.checkpoints.components import Components
    from pag_inverse.priors.checkpoints.stable_diffusion import is_latent_diffusion, load_stable_diffusion

    state = load_state(path)
    if is_latent_diffusion(state):
        return load_stable_diffusion(path, state, config, prediction)
    heads = (known and known.head_channels) or 64
    unet, size = load_adm(path, state, head_channels=heads, config=config, class_conditional=class_conditional)
    betas = _betas(known)
    betas = BETAS["linear"]() if betas is None else betas
    return Components(
        str(path), unet, None, betas, prediction or "epsilon", image_size=size, class_conditional=class_conditional
    ).prior()


def _betas(known: PriorConfig | None) -> Floats | None:
    return BETAS[known.betas.schedule](known.betas.start, known.betas.end) if known else None


def _as_it_is(prior: Prior, device: str | torch.device | None, dtype: torch.dtype | None) -> Prior:
    """The prior, if it is where and what is asked for."""
    if dtype is not None and dtype != network_dtype(prior.unet):
        found = str(network_dtype(prior.unet)).removeprefix("torch.")
        raise ValueError(f"prior {prior.name} is loaded already, in {found}; give the precision where it is loaded")
    wanted = prior.device if device is None else torch.device(device)  # without an index it is any of its kind
    if wanted.type != prior.device.type or wanted.index not in (None, prior.device.index):
        raise ValueError(f"prior {prior.name} is on {prior.device}, not {device}; prior.to({str(device)!r}) moves it")
    return prior


def _refuse(options: Mapping[str, object], because: str) -> None:
    for name, value in options.items():
        if value not in (None, False):
            raise ValueError(f"{name} is given but {because}; leave it out")
