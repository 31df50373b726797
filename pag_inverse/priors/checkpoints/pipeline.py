"""Models at hand: a diffusers pipeline, a U-Net, or a U-Net with its autoencoder; the caller's are left as they are."""

from __future__ import annotations

from typing import Any

import torch

from pag_inverse.priors.base import Prior
from pag_inverse.priors.checkpoints.components import Components, is_a
from pag_inverse.priors.checkpoints.scheduler import SCHEDULERS, betas_of, prediction_of
from pag_inverse.priors.checkpoints.text_encoder import TextEncoder, held_text_encoder
from pag_inverse.priors.networks import own_view, uncompiled
from pag_inverse.schedule import BETAS, Floats
from pag_inverse.settings import PRECISIONS

PIPELINES = ("DDPMPipeline", "DDIMPipeline", "LDMPipeline", "StableDiffusionPipeline")
_DTYPES = {getattr(torch, name) for name in (*PRECISIONS, "float64")}


def load_objects(source: Any, scheduler: Any, prediction: str | None) -> Prior:
    """The prior of a pipeline among PIPELINES, of a UNet2DModel, or of a pair (U-Net, autoencoder).

    A pipeline has its own scheduler. Without one a U-Net alone has linear betas, a pair those of Stable Diffusion.
    ValueError for another object, and for weights that are offloaded or in several number formats.
    """
    if is_a(source, "DiffusionPipeline"):
        if scheduler is not None:
            raise ValueError(f"a {type(source).__name__} has a scheduler of its own; leave the scheduler out")
        return _from_pipeline(source, prediction)
    networks = source if isinstance(source, tuple) else (source,)
    if not 1 <= len(networks) <= 2 or not all(isinstance(network, torch.nn.Module) for network in networks):
        kinds = ", ".join(type(network).__name__ for network in networks)
        raise ValueError(
            f"no prior can be made of {kinds}: give a name, a path, a Prior, a {', a '.join(PIPELINES)}, a UNet2DModel "
            "or a pair of a U-Net and an AutoencoderKL or VQModel"
        )
    unet, vae = (*networks, None)[:2]
    betas = BETAS["linear" if vae is None else "scaled_linear"]()
    where = type(uncompiled(unet)).__name__
    return _assemble(where, unet, vae, *_chain(scheduler, prediction, betas))


def _from_pipeline(pipeline: Any, prediction: str | None) -> Prior:
    kind, name = type(pipeline).__name__, str(pipeline.config.get("_name_or_path") or "")
    if not is_a(pipeline, *PIPELINES):
        raise ValueError(f"a {kind} is not supported; supported are {', '.join(PIPELINES)}")
    vae = getattr(pipeline, "vae", None) or getattr(pipeline, "vqvae", None)
    encoder = getattr(pipeline, "text_encoder", None)
    text = held_text_encoder(encoder, getattr(pipeline, "tokenizer", None), kind) if encoder is not None else None
    betas, predicted = _chain(pipeline.scheduler, prediction, BETAS["linear"]())
    prior = _assemble(kind, pipeline.unet, vae, betas, predicted, text)
    prior.name = name.rstrip("/").rsplit("/", 1)[-1] or prior.name
    return prior


def _chain(scheduler: Any, prediction: str | None, default: Floats) -> tuple[Floats, str]:
    if scheduler is None:
        return default, prediction or "epsilon"
    if not is_a(scheduler, "SchedulerMixin"):
        raise ValueError(f"scheduler is a {type(scheduler).__name__}; it must be a scheduler of diffusers")
    where = type(scheduler).__name__
    known = [kind.__name__ for kind in type(scheduler).__mro__ if kind.__name__ in SCHEDULERS]
    config = {**scheduler.config, "_class_name": (*known, where)[0]}
    return betas_of(config, where), prediction_of(config, where, prediction)


def _assemble(
    where: str, unet: Any, vae: Any, betas: Floats, prediction: str, text: TextEncoder | None = None
) -> Prior:
    unet, vae = uncompiled(unet), uncompiled(vae)
    _check_network(unet, where, "UNet2DModel", "UNet2DConditionModel")
    if vae is not None:
        _check_network(vae, where, "AutoencoderKL", "VQModel")
        vae = _with_scale(vae)
    return Components(where, unet, vae, betas, prediction, text).prior()


def _with_scale(vae: Any) -> Any:
    """A VQModel from a file that names no scale has latents that are not scaled, as `load_autoencoder` says."""
    assumed = "scaling_factor" in vae.config.get("_use_default_values", ())
    if is_a(vae, "VQModel") and assumed and vae.config.get("_name_or_path"):
        vae = own_view(vae)
        vae.register_to_config(scaling_factor=1.0)
    return vae


def _check_network(network: Any, where: str, *kinds: str) -> None:
    """ValueError for a network of another class, and for weights that are offloaded or in several number formats."""
    if not is_a(network, *kinds):
        raise ValueError(f"{where}: {type(network).__name__} in place of {' or '.join(kinds)}")
    if any(parameter.is_meta for parameter in network.parameters()):
        raise ValueError(f"{where}: its weights are offloaded; load it without offloading to use it as a prior")
    formats = {parameter.dtype for parameter in network.parameters()}
    if len(formats) != 1 or not formats <= _DTYPES:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in formats))
        raise ValueError(f"{where}: weights in {found}; they must be in one of {', '.join(PRECISIONS)}")
    for name, parameter in network.named_parameters():
        if not all(bool(torch.isfinite(bound)) for bound in parameter.detach().aminmax()):
            raise ValueError(f"{where}: {name} holds NaN or infinite numbers")
