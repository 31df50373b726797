"""Reading tensors and settings from disk: a fault is one line that says which file, what is wrong and the remedy."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pag_inverse.settings import read_yaml
from pag_inverse.settings.files import read_json

_WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, or of a torch file without running any code it may hold.

    Of a training checkpoint that holds more, the state dict in it; ValueError where it holds several.
    """
    try:
        content: object = load_file(path) if path.suffix == ".safetensors" else _load_torch(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors (a pickle with code, or no torch file); not loaded; "
            "a .safetensors of the same weights can be"
        ) from error
    except (RuntimeError, EOFError, SafetensorError, struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or truncated, or no checkpoint: {first_line(error)}") from error
    state = _state_dict(path, content)
    for prefix in _WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _load_torch(path: Path) -> object:
    with harmless_globals():
        return torch.load(path, map_location="cpu", weights_only=True)


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    """The one mapping of names to tensors: the content itself, its `state_dict`, or the only one in it."""
    if _is_state(content):
        return dict(content)  # type: ignore[call-overload]
    inner = {str(k): v for k, v in content.items() if _is_state(v)} if isinstance(content, Mapping) else {}
    inner = {"state_dict": inner["state_dict"]} if "state_dict" in inner else inner
    if len(inner) > 1:
        raise ValueError(f"{path} holds several state dicts ({', '.join(inner)}); save the one to use in a file alone")
    if not inner:
        raise ValueError(f"{path} is no state dict of tensors")
    return dict(*inner.values())


def _is_state(content: object) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


class _Named:
    """Stands for a class that a checkpoint only mentions."""


def harmless_globals() -> AbstractContextManager[None]:
    """Read the published Stable Diffusion `.ckpt` too: they name a callback of their trainer, which is not imported."""
    allow = getattr(torch.serialization, "safe_globals", None)  # torch 2.5 has it
    names = ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)
    return allow([(_Named, name) for name in names]) if allow else nullcontext()


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its class where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def one_line(error: Exception, longest: int = 300) -> str:
    """An exception's message on one line."""
    return " ".join(str(error).split())[:longest]


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON or YAML file of settings; ValueError otherwise."""
    return read_yaml(file) if file.suffix in (".yaml", ".yml") else read_json(file)
