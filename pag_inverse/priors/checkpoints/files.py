"""Reading tensors and settings from disk: a fault is one line that says which file, what is wrong and the remedy."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from operators.validation import short
from pag_inverse.priors.checkpoints.pickles import check_pickles
from pag_inverse.priors.checkpoints.state_dicts import find_state, is_name
from pag_inverse.settings.files import check_file, read_json, read_text
from pag_inverse.settings.reader import parse_yaml

NAMES_LIMIT = 2**21  # bytes of the names and shapes in a file; those of Stable Diffusion take 0.3 MB
SETTINGS_LIMIT = 2**16  # bytes of a file of arguments, or of one of settings in YAML
_FORMATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors`, or in a torch file without running any code it may hold.

    `state_dicts.find_state` says which one of a training checkpoint. ValueError for a file of another kind, and for
    tensors that need more memory than the file has bytes.
    """
    size = check_file(path)
    state = find_state(str(path), _content(path))
    if sum(value.numel() * value.element_size() for value in state.values()) > 2 * size:  # some weights may be shared
        raise ValueError(f"{path}: its tensors have more numbers than the file holds: save them as contiguous copies")
    return state


def as_float32(state: Mapping[str, Tensor], where: str = "") -> dict[str, Tensor]:
    """The tensors in float32; ValueError for the first one that does not hold finite real numbers alone."""
    return {key: _weight(f"{where}key {key}", value) for key, value in state.items()}


def _weight(key: str, value: Tensor) -> Tensor:
    if value.dtype not in _FORMATS or value.layout != torch.strided or value.device.type != "cpu" or value.is_nested:
        formats = ", ".join(str(dtype).removeprefix("torch.") for dtype in _FORMATS)
        kind = f"{value.dtype}, {value.layout}, on {value.device}".replace("torch.", "")
        raise ValueError(f"{key} is a tensor of another kind ({kind}); weights are dense and in {formats}")
    weight = value.detach().float()
    if not weight.numel() or not all(bool(torch.isfinite(bound)) for bound in weight.aminmax()):
        raise ValueError(f"{key} of shape {tuple(weight.shape)} is empty, or holds NaN or infinite numbers")
    return weight


def _content(path: Path) -> object:
    try:
        names = names_in(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        check_pickles(names)
        with harmless_globals():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "a pickle with code, or no torch file); not loaded; a .safetensors of the same weights can be"
        raise ValueError(f"{path} holds more than tensors ({reason}") from error
    except Exception as error:  # whatever the readers of both formats raise on bytes that are not theirs
        reason = one_line(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path} is damaged or truncated, or no checkpoint: {reason}") from error


def names_in(path: Path) -> bytes:
    """The part of a checkpoint in which the names of its tensors stand: a header, a pickle, or the first 2 MB.

    It raises anything on bytes of another kind; ValueError for more than 2 MB of names, and for a zip that torch did
    not write: with entries that are compressed, or larger than the file.
    """
    size = check_file(path)
    with path.open("rb") as file:
        if path.suffix != ".safetensors":
            start = file.read(NAMES_LIMIT)
            return _pickle_in_zip(path, size) if start.startswith(b"PK\x03\x04") else start
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size, NAMES_LIMIT):
            raise ValueError(f"a header of {length} bytes")
        return file.read(length)


def _pickle_in_zip(path: Path, size: int) -> bytes:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed; torch.save does not compress them")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its entries are larger than the file")
        names = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(names) != 1 or names[0].file_size > NAMES_LIMIT:
            raise ValueError(f"it has no data.pkl of at most {NAMES_LIMIT / 1e6:.0f} MB")
        return archive.read(names[0])


class _Named:
    """Stands for a class that a checkpoint only mentions."""


def harmless_globals() -> AbstractContextManager[None]:
    """Read the published Stable Diffusion `.ckpt` too: they name a callback of their trainer, which is not imported."""
    allow = getattr(torch.serialization, "safe_globals", None)  # torch 2.5 has it
    names = ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)
    return allow([(_Named, name) for name in names]) if allow else nullcontext()


def one_line(error: Exception, longest: int = 300) -> str:
    """An exception's message on one line, or its class where it has none."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON or YAML file of settings, of at most 64 kB; ValueError otherwise."""
    check_file(file, SETTINGS_LIMIT)
    is_yaml = file.suffix in (".yaml", ".yml")
    values = parse_yaml(read_text(file, SETTINGS_LIMIT), str(file)) if is_yaml else read_json(file)
    if odd := [key for key in values if not is_name(key)]:
        raise ValueError(f"{file}: {short(odd[0])} is an unknown key")
    left, parts = [values], 0
    while left:  # few aliases of YAML can name billions of values
        value, parts = left.pop(), parts + 1
        left += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        if parts + len(left) > SETTINGS_LIMIT:
            raise ValueError(f"{file}: its aliases make it larger than a file of settings")
    return values
