"""Reading checkpoints from disk: a fault is one line that says which file, what is wrong and what would be right."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pag_inverse.priors.checkpoints.adm import build_unet, read_layout
from pag_inverse.schedule import BETAS, Floats, T
from pag_inverse.settings import PREDICTIONS

if TYPE_CHECKING:
    from diffusers import UNet2DModel

ADM_SETTINGS = ("num_head_channels", "num_heads", "use_new_attention_order", "image_size")


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, or of a torch file without running any code it may hold.

    Of a training checkpoint with more beside them, those of its `state_dict`.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with harmless_globals():
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors (a pickle with code, or no torch file); not loaded; "
            "a .safetensors of the same weights can be"
        ) from error
    except (RuntimeError, EOFError, SafetensorError, struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or truncated, or no checkpoint: {first_line(error)}") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} is no state dict of tensors")
    return dict(state)


class _Named:
    """Stands for a class that a checkpoint only mentions."""


def harmless_globals() -> AbstractContextManager[None]:
    """Read the published Stable Diffusion `.ckpt` too: they name a callback of their trainer, which is not imported."""
    allow = getattr(torch.serialization, "safe_globals", None)  # torch 2.5 has it
    names = ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)
    return allow([(_Named, name) for name in names]) if allow else nullcontext()


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_adm(
    path: Path, state: Mapping[str, Tensor], *, head_channels: int = 64, config: Path | None = None
) -> tuple[UNet2DModel, int]:
    """An OpenAI-ADM checkpoint and its image size: 256, or what `config`, a file of ADM's own arguments, says."""
    settings = _read_adm_config(config) if config else {}
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


def scheduler_file(folder: Path) -> Path | None:
    """The settings of a diffusers folder's scheduler: in `scheduler`, or beside the network where there is but one."""
    for file in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if file.exists():
            return file
    return None


def read_betas(folder: Path, default: Floats) -> Floats:
    """The betas of a diffusers folder's scheduler, or `default` where it has none."""
    file = scheduler_file(folder)
    if file is None:
        return default
    config = read_json(file)
    schedule, steps = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", T)
    if schedule not in BETAS or steps != T:
        raise ValueError(
            f"{file}: beta_schedule {schedule}, {steps} steps; supported are {' and '.join(BETAS)}, {T} steps"
        )
    for name in ("rescale_betas_zero_snr", "trained_betas"):
        if config.get(name):
            raise ValueError(f"{file}: {name} is not supported")
    return BETAS[schedule](float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02)))


def read_prediction(folder: Path, given: str | None) -> str | None:
    """What a diffusers folder's network predicts, as its scheduler says; `given` where it has none."""
    file = scheduler_file(folder)
    if file is None:
        return given
    found = read_json(file).get("prediction_type", "epsilon")
    if found not in PREDICTIONS:
        raise ValueError(f"{file}: prediction_type {found}; supported are {' and '.join(PREDICTIONS)}")
    if given not in (None, found):
        raise ValueError(f"{file} says {found}, not {given}: leave the prediction out, or mend the file")
    return str(found)


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
    return {k: v for k, v in read_settings(file).items() if k in ADM_SETTINGS}


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON or YAML file of settings."""
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
    return content
