"""The file a run goes on from: `state.pt`, written whole, read without running any code, checked before it is used."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pag_inverse.data.files import write_whole
from pag_inverse.settings.files import check_file
from pag_inverse.storage.files import differences
from pag_inverse.training.folder import STATE
from pag_inverse.training.inputs import Hashes, changes
from pag_inverse.training.settings import ONLY_FOR, TrainSettings

State = dict[str, Any]
_KEYS = {"step": int, "settings": dict, "model": dict, "ema": dict, "optimizer": dict}
_LATER_KEYS: dict[str, tuple[type, ...]] = {  # states of earlier versions do not have all of them
    "inputs": (dict,),
    "processes": (int,),
    "validation": (dict, type(None)),
    "norm": (float, type(None)),
}
_UNREADABLE = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, KeyError,
               ValueError, TypeError, AttributeError, IndexError, OSError)  # fmt: skip


def write_state(folder: Path, state: State) -> None:
    """Write it whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(folder / STATE, buffer.getvalue())


def read_state(folder: Path) -> State | None:
    """The state in a folder; None where there is none. ValueError for a damaged one and for another program's file."""
    path = folder / STATE
    if not path.exists():
        return None
    check_file(path)
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # torch does not look at the checksums
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(f"{path} is damaged, or no state of a training run; choose another folder") from error
    if not isinstance(state, dict) or not _is_state(state):
        raise ValueError(f"{path} is no state of a training run; choose another folder")
    return state


def _is_state(state: State) -> bool:
    """Whether a mapping has what a state of this or an earlier version has."""
    later = all(isinstance(state[key], kinds) for key, kinds in _LATER_KEYS.items() if key in state)
    return later and all(isinstance(state.get(key), kind) for key, kind in _KEYS.items())


def check_same(folder: Path, state: State, settings: TrainSettings, inputs: Hashes) -> None:
    """ValueError where a state was made with other settings or of other inputs.

    A setting that the state does not have had its default. A state of an earlier version has no record of its inputs
    and goes on.
    """
    recorded = state.get("inputs")
    ignored = {name for name, kinds in ONLY_FOR.items() if settings.kind not in kinds}
    if recorded is not None:
        ignored.add("init")  # compared by content
    stored = state["settings"]
    if "kl_weight" not in stored:  # states of earlier versions do not tell
        ignored.add("kl_weight")
    compared = [field for field in fields(TrainSettings) if field.name not in ignored]
    then = {f.name: stored.get(f.name, None if f.default is MISSING else f.default) for f in compared}
    now = {f.name: getattr(settings, f.name) for f in compared}
    for paths in (then, now):  # ./a is a
        paths.update({"init": str(Path(paths["init"]))} if paths.get("init") else {})
    if other := differences(then, now):
        raise ValueError(f"{folder} was trained with other settings: {', '.join(other)}; choose another --output")
    if recorded is not None and (other := changes(recorded, inputs)):
        raise ValueError(f"{folder} was trained on other inputs: {'; '.join(other)}; choose another --output")


def check_fits(folder: Path, state: State, own: Mapping[str, Tensor], steps: int) -> None:
    """ValueError where a state is that of another network, or of a step that the run does not have."""
    shapes = {key: value.shape for key, value in own.items()}
    for part in ("model", "ema"):
        held = {key: getattr(value, "shape", None) for key, value in state[part].items()}
        if held != shapes:
            raise ValueError(f"{folder / STATE} holds another network; choose another folder")
    if not 0 <= state["step"] <= steps:
        raise ValueError(f"{folder / STATE} is of step {state['step']} of {steps}; choose another folder")


def check_moments(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """ValueError where what an optimiser remembers of a parameter has another shape."""
    for parameter, held in optimizer.state.items():
        if any(getattr(held.get(name), "shape", None) != parameter.shape for name in ("exp_avg", "exp_avg_sq")):
            raise ValueError(f"{folder / STATE} holds the state of another optimiser; choose another folder")


def all_finite(weights: Mapping[str, Tensor]) -> bool:
    """Whether no tensor holds NaN or Inf."""
    return all(bool(torch.isfinite(value).all()) for value in weights.values())
