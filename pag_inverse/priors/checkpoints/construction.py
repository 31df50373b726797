"""Networks of diffusers from settings and tensors that may be anything: checked before anything is allocated."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators.validation import check_number, check_whole, is_whole, short
from pag_inverse.priors.checkpoints.files import as_float32, load_state, one_line
from pag_inverse.priors.checkpoints.state_dicts import is_name
from pag_inverse.settings.files import read_json

DIFFUSERS = {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"}
POSITIONS = "position_ids"  # a buffer of text encoders that is not saved
_LARGEST, _MOST_LAYERS, _MOST_BLOCKS, _LONGEST_LIST, _MOST_SHARDS = 2**16, 64, 512, 12, 1000
# Attention as diffusers named its weights before version 0.14.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# Settings that mean an input or a condition that a prior does not have, or latents that are more than scaled.
_CLASSES, _MORE = "a class-conditional network", "Stable Diffusion XL or a model of more conditions than a prompt"
_TEXT, _SCALED = "a network of another condition than CLIP's text", "an autoencoder whose latents are more than scaled"
_OTHER_KINDS = {
    **dict.fromkeys(("class_embed_type", "num_class_embeds", "class_embeddings_concat"), _CLASSES),
    **dict.fromkeys(("addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim"), _MORE),
    **dict.fromkeys(("encoder_hid_dim", "encoder_hid_dim_type"), _TEXT),
    **dict.fromkeys(("shift_factor", "latents_mean", "latents_std", "lookup_from_codebook"), _SCALED),
    "dual_cross_attention": "a network with a picture as condition",
    "time_cond_proj_dim": "a distilled network that takes the guidance scale as input",
    "center_input_sample": "a network for images in [0, 1]",
}
_ONLY = {"time_embedding_type": "positional", "attention_type": "default"}


def check_settings(config: Mapping[str, Any], kind: Any, where: str) -> dict[str, Any]:
    """The arguments of a network's class in a config.json; ValueError, which begins with `where`, for a faulty one.

    Each must be an argument of the class, of the type of its default, and of a size that a network can have.
    """
    defaults = {name: p.default for name, p in inspect.signature(kind.__init__).parameters.items() if name != "self"}
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(f"{where}: {short(name)} is an unknown key of a {kind.__name__}: another kind of model")
        check_setting(f"{where}: {name}", value, defaults[name], _MOST_LAYERS if "layers" in name else _LARGEST)
    check_kind(given, where)
    return given


def check_kind(config: Mapping[str, Any], where: str) -> None:
    """ValueError, which begins with `where`, for settings of a network that no prior can run."""
    for name, meaning in _OTHER_KINDS.items():
        if (value := config.get(name)) is not None and value is not False:
            raise ValueError(f"{where}: {name} is {short(value)}: {meaning} is not supported")
    for name, needed in _ONLY.items():
        if (value := config.get(name, needed)) != needed:
            raise ValueError(f"{where}: {name} is {short(value)}; supported is {needed}")


def check_setting(where: str, value: object, default: object, largest: int = _LARGEST) -> None:
    """ValueError, which begins with `where`, for a value of another type than its default or beyond any network."""
    if isinstance(value, list):
        if not 0 < len(value) <= _LONGEST_LIST or any(isinstance(item, (list, dict)) for item in value):
            raise ValueError(f"{where} is {short(value)}; a list has 1 to {_LONGEST_LIST} values")
        default = default[0] if isinstance(default, tuple) else default
        for item in value:
            check_setting(where, item, default, largest)
    elif value is None:
        return  # what it means is the class's own
    elif isinstance(default, tuple):
        raise ValueError(f"{where} is {short(value)}; it must be a list")
    elif isinstance(default, (bool, str)) or isinstance(value, (bool, str)):
        if default is not None and type(value) is not type(default):
            raise ValueError(f"{where} is {short(value)}; it is of the kind of {short(default)}")
    elif isinstance(value, float):
        check_number(where, value, maximum=largest)
    else:
        check_whole(where, value, maximum=largest)


def check_depth(settings: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> None:
    """ValueError, which begins with `where`, for more blocks than the weights can be of."""
    blocks = len(settings.get("block_out_channels") or (0,))
    for name, value in settings.items():
        counts = [count for count in (value if isinstance(value, list) else [value]) if is_whole(count)]
        blocks *= max(counts, default=1) if "layers" in name else 1
    if blocks > min(len(state), _MOST_BLOCKS):
        raise ValueError(f"{where} cannot be loaded: {blocks} blocks do not fit to {len(state)} tensors")


def build_network(make: Callable[[], Any], state: Mapping[str, Tensor], where: str) -> Any:
    """A network of diffusers or transformers over float32 tensors, each in its place, in evaluation mode.

    Nothing is allocated for it. ValueError, which begins with `where`: settings that do not fit together, a tensor that
    is missing, left over or of another shape.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            network = make().eval()
            _try(network)
    except Exception as error:  # third-party code raises anything on settings that do not fit together
        raise ValueError(f"{where} cannot be loaded: its settings make no network: {one_line(error)}") from error
    try:
        network.load_state_dict(_in_place(state, set(network.state_dict())), strict=True, assign=True)
    except RuntimeError as error:
        kind, reason = type(network).__name__, one_line(error).rpartition(f"{type(network).__name__}: ")[2]
        raise ValueError(f"{where} cannot be loaded: not the weights of one {kind}: {reason}") from error
    for name, module in network.named_modules():
        if any(buffer.is_meta for key, buffer in module._buffers.items() if buffer is not None and key != POSITIONS):
            raise ValueError(f"{where} cannot be loaded: the block {name} is not supported")
    return network


def _try(network: Any) -> None:
    """Run a network of diffusers on tensors without numbers: it must give what its settings say."""
    config, side = network.config, 2 ** len(getattr(network.config, "block_out_channels", ()))
    if hasattr(network, "encode"):
        found = network.encode(torch.zeros(1, config.in_channels, side, side))
        latents = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
        shape, expected = network.decode(latents).sample.shape, (1, config.out_channels, side, side)
        if latents.shape[2:] != (2, 2):
            raise ValueError(f"its latents have the shape {tuple(latents.shape)} at {side} pixels")
    elif hasattr(config, "block_out_channels"):
        prompt = [torch.zeros(1, 77, config.cross_attention_dim)] if "cross_attention_dim" in config else []
        z, t = torch.zeros(1, config.in_channels, side, side), torch.zeros(1, dtype=torch.long)
        labels = {"class_labels": t} if getattr(config, "num_class_embeds", None) else {}
        shape, expected = network(z, t, *prompt, **labels).sample.shape, (1, config.out_channels, side, side)
    else:
        return
    if tuple(shape) != expected:
        raise ValueError(f"it gives the shape {tuple(shape)}, not {expected}")


def _in_place(state: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    """The tensors under the network's names: attention had others once, and text encoders have a prefix in some."""
    found = {}
    for key, value in state.items():
        *module, old, kind = ["", *key.split(".")]
        new = ".".join([*module, _RENAMED.get(old, old), kind]).removeprefix(".")
        found[next((name for name in (key, new, f"text_model.{key}") if name in names), key)] = value
    if len(found) != len(state):
        raise RuntimeError("two keys are the same weight")
    return found


def read_weights(folder: Path, stems: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights in a folder in float32, under `stems`, by extension: whole or in shards, else their fp16 variant.

    ValueError where there are none, or where a tensor cannot be a weight.
    """
    for variant in ("", ".fp16"):
        for extension, stem in stems.items():
            file, index = f"{stem}{variant}.{extension}", f"{stem}.{extension}.index{variant}.json"
            if os.path.lexists(folder / file):
                return _read(folder, [file])
            if os.path.lexists(folder / index):
                return _read(folder, _shards(folder / index))
    expected = " or ".join(f"{stem}.{extension}" for extension, stem in stems.items())
    raise ValueError(f"{folder} holds no weights: {expected} belongs here")


def _shards(index: Path) -> list[str]:
    places = read_json(index).get("weight_map")
    files = list(places.values()) if isinstance(places, dict) else []
    if not files or any(not is_name(file) or file != Path(file).name for file in files):
        raise ValueError(f"{index} has no weight_map of keys to files beside it")
    if len(found := sorted(set(files))) > _MOST_SHARDS:
        raise ValueError(f"{index} names {len(found)} files; at most {_MOST_SHARDS} are read")
    return found


def _read(folder: Path, files: list[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in files:
        state = as_float32(load_state(folder / file), f"{folder / file}: ")
        if repeated := found.keys() & state.keys():
            raise ValueError(f"{folder / file}: key {min(repeated)} is in another file too")
        found |= state
    return found
