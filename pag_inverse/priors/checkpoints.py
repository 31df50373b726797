"""Reading checkpoints from disk: a fault is one line that says which file, what is wrong and what would be right."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pag_inverse.priors.adm import build_unet, read_layout
from pag_inverse.schedule import BETAS, Floats, T

if TYPE_CHECKING:
    from diffusers import UNet2DModel

ADM_SETTINGS = ("num_head_channels", "num_heads", "use_new_attention_order", "image_size")


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, or of a torch file without running any code it may hold."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors (a pickle with code, or no torch file); not loaded"
        ) from error
    except (RuntimeError, EOFError, SafetensorError, struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or truncated, or no checkpoint: {first_line(error)}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} is no state dict of tensors")
    return dict(state)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_adm(path: Path, *, head_channels: int = 64, config: Path | None = None) -> tuple[UNet2DModel, int]:
    """An OpenAI-ADM checkpoint and its image size: 256, or what `config`, a file of ADM's own arguments, says."""
    settings = _read_adm_config(config) if config else {}
    state = load_state(path)
    try:
        head_channels = _head_channels(settings, state, head_channels)
        layout = read_layout(state, head_channels, bool(settings.get("use_new_attention_order", False)))
        image_size = int(settings.get("image_size", 256))
        return build_unet(state, layout, image_size), image_size
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_model(folder: Path, *kinds: str) -> Any:
    """One diffusers model of a folder (config.json and weights), every key in its place; float32."""
    kind = read_json(folder / "config.json").get("_class_name")
    if kind not in kinds:
        raise ValueError(f"{folder} holds a {kind}; a {' or '.join(kinds)} belongs here")
    import diffusers

    try:
        model, info = getattr(diffusers, kind).from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError, KeyError) as error:
        raise ValueError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(fault):
            raise ValueError(f"{folder}: {fault.replace('_', ' ')}: {list(info[fault])[:3]}")
    return model


def read_betas(folder: Path, default: Floats) -> Floats:
    """The betas of a diffusers folder's scheduler, or `default` where it has none."""
    file = folder / "scheduler" / "scheduler_config.json"
    if not file.exists():
        return default
    config = read_json(file)
    schedule, steps = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", T)
    prediction = config.get("prediction_type", "epsilon")
    if schedule not in BETAS or steps != T or prediction != "epsilon":
        raise ValueError(
            f"{file}: beta_schedule {schedule}, {steps} steps, prediction_type {prediction}; "
            f"supported are {' and '.join(BETAS)}, {T} steps, epsilon"
        )
    return BETAS[schedule](float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02)))


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{file} is missing") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no table of settings")
    return content


def empty_prompt_embedding(folder: Path) -> Tensor:
    """The embedding (1, 77, D) of the empty prompt, from the text encoder alone: its tokens are known."""
    return embed_tokens(folder, None)


def prompt_embedding(folder: Path, prompt: str) -> Tensor:
    """The embedding (1, 77, D) of a prompt; needs the folder's tokenizer beside its text encoder."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'tokenizer'} cannot be loaded; a prompt needs it") from error
    ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return embed_tokens(folder, ids)


@torch.no_grad()
def embed_tokens(folder: Path, ids: Tensor | None) -> Tensor:
    """The text encoder's last hidden state; `ids` None is the empty prompt (SD 1.x pads with 49407, 2.x with 0)."""
    from transformers import CLIPTextModel

    try:
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder / 'text_encoder'} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    if ids is None:
        pad = 0 if encoder.config.hidden_size == 1024 else 49407
        ids = torch.tensor([[49406, 49407, *[pad] * 75]])
    return encoder(ids).last_hidden_state.float()


def _head_channels(settings: dict[str, Any], state: Mapping[str, Tensor], default: int) -> int:
    """ADM's rule: `num_head_channels`, unless it is -1; then `num_heads` must say the same for every width."""
    given = int(settings.get("num_head_channels", default))
    if given != -1:
        return given
    heads = int(settings.get("num_heads", 1))
    widths = {v.shape[0] // 3 for k, v in state.items() if k.endswith("qkv.weight")}
    if len(widths) != 1:
        raise ValueError(f"num_heads {heads} over attention of widths {sorted(widths)}: heads of one width are needed")
    return widths.pop() // heads


def _read_adm_config(file: Path) -> dict[str, Any]:
    if file.suffix in (".yaml", ".yml"):
        import yaml

        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{file} holds no table of settings")
    else:
        content = read_json(file)
    return {k: v for k, v in content.items() if k in ADM_SETTINGS}
