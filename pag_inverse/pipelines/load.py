"""Pipelines from folders of weights, with PAG on exactly named layers."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pag_inverse.pipelines.guided import guided_unet
from pag_inverse.pipelines.presets import Preset
from pag_inverse.priors.attention_layers import resolve_layers
from pag_inverse.priors.checkpoints.files import one_line
from pag_inverse.settings import check_number

# Sentences of the libraries that name arguments of their own, which no flag gives.
_ADVICE = re.compile(
    r"local_files_only|low_cpu_mem_usage|ignore_mismatched|allow_pickle|environment variable|stacktrace|https?://"
)
_LONGEST, _TEXT = 300, 20_000  # letters of a reason, and of the text that it is taken from
NETWORKS = ("unet", "vae", "text_encoder", "controlnet")


def load_pipeline(
    preset: Preset,
    *,
    weights: Path | None = None,
    controlnet: Path | None = None,
    s: float | None = None,
    layers: Sequence[str] | None = None,
    cfg: float = 1.0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    download: bool = False,
) -> Any:
    """A pipeline of diffusers that is ready to be called with guidance_scale=cfg, and pag_scale=s where it has that.

    `weights` and `controlnet` are folders in diffusers' layout; without them the hub's copy of the preset's own is
    taken, from the cache of this machine, or with `download` from the hub. ControlNet and inpainting are diffusers' own
    PAG pipelines. The upscaler is the stock pipeline, its U-Net a `guided_unet`.
    ValueError: weights that are missing or do not load, or a layer that holds no self-attention.
    """
    import diffusers

    check_number("cfg", cfg)
    parts: dict[str, Any] = {"safety_checker": None}
    if preset.kind != "upscale":
        parts["requires_safety_checker"] = False
    if preset.controlnet is not None:
        parts["controlnet"] = _loaded(diffusers.ControlNetModel, controlnet, preset.controlnet, download)
    kind = getattr(diffusers, preset.pipeline)
    pipeline = _placed(_loaded(kind, weights, preset.weights, download, **parts), device, dtype)
    scale, chosen = preset.s if s is None else s, preset.layers if layers is None else layers
    if hasattr(pipeline, "set_pag_applied_layers"):
        check_number("s", scale)
        pipeline.set_pag_applied_layers(exact_layers(pipeline.unet, chosen))
    else:
        pipeline.unet = guided_unet(pipeline.unet, scale, chosen, cfg=cfg)
    pipeline.set_progress_bar_config(disable=None)  # a bar on a terminal, none in a log
    return pipeline


def exact_layers(unet: Any, layers: Sequence[str]) -> list[str]:
    """Layers as diffusers' PAG pipelines take them: regular expressions that match these and no others.

    ValueError where one holds no self-attention.
    """
    return [f"^{re.escape(name)}$" for name in resolve_layers(unet, layers)]


def fingerprint(pipeline: Any) -> str:
    """The SHA-256 of the weights and settings of a pipeline's networks and scheduler."""
    digest = hashlib.sha256(repr(sorted(dict(pipeline.scheduler.config).items())).encode())
    for name in NETWORKS:
        network = getattr(pipeline, name, None)
        if network is None:
            continue
        for key, tensor in network.state_dict().items():
            digest.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _placed(pipeline: Any, device: str, dtype: torch.dtype) -> Any:
    """A pipeline whose networks are on `device` in the format `dtype`."""
    for name in NETWORKS:
        network = getattr(pipeline, name, None)
        if network is not None:
            torch.nn.Module.to(network, device, dtype)  # that of diffusers warns of formats, and of half on a processor
    return pipeline


@contextmanager
def _quietly() -> Iterator[None]:
    """Loading without the bars, the warnings and the logs of the libraries: a fault is told by its error."""
    from diffusers.utils import logging as first
    from transformers.utils import logging as second

    shown = [log for log in (first, second) if log.is_progress_bar_enabled()]
    told = [(log, log.get_verbosity()) for log in (first, second)]
    for log in shown:
        log.disable_progress_bar()
    for log, _ in told:
        log.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log in shown:
            log.enable_progress_bar()
        for log, level in told:
            log.set_verbosity(level)


def _loaded(kind: Any, folder: Path | None, published: str, download: bool, **parts: Any) -> Any:
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{folder}: no folder of weights; it must be one in diffusers' layout, such as {published}")
    source, offline = (published, not download) if folder is None else (str(folder), True)
    try:
        with _quietly():
            return kind.from_pretrained(source, local_files_only=offline, **parts)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        what = f"{source} does not load as a {kind.__name__}: {_reason(error)}"
        remedy = "" if folder is not None or download else f"; give the folder of {published}, or --download"
        raise ValueError(f"{what}{remedy}") from error


def _reason(error: Exception) -> str:
    """What a library says of a fault, without its advice and the last full stop."""
    sentences = re.split(r"(?<=[.?!])\s+", one_line(error, _TEXT))
    text = " ".join(one for one in sentences if not _ADVICE.search(one)).rstrip(". ")[:_LONGEST] or type(error).__name__
    return text + ")" * (text.count("(") - text.count(")"))  # the advice may have stood in brackets
