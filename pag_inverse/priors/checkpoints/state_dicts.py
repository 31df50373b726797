"""The state dict that a checkpoint holds: inside a training checkpoint, a moving average, a wrapper's names."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from operators.validation import short

_AVERAGE = re.compile(r"(.*_)?(ema|ema_?\d+|averaged?|avg|shadow)(_.*)?", re.IGNORECASE)
_OTHER = re.compile(r".*(optim|sched|scaler|callback|loop|discriminator|loss).*", re.IGNORECASE)
# Names under which programs save the weights; the first one that is there is taken.
_WEIGHTS = (
    "state_dict", "model_state_dict", "model_state", "model", "params", "network", "net", "module", "weights",
    "generator",
)  # fmt: skip
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")  # what torch's own wrappers put before names
_DEEPEST, _LONGEST = 8, 200  # levels of mappings, characters of a key

State = dict[str, Tensor]


def find_state(path: str, content: object) -> State:
    """The state dict in the content of a checkpoint, under plain names; `path` names it in messages.

    A moving average goes before the last weights, then the names in _WEIGHTS, then the only state dict. Entries that
    are no weights, such as an epoch, are left out. ValueError where several remain, or none; a warning says what was
    taken where there was a choice.
    """
    for _ in range(_DEEPEST):
        state, inner = _tensors(path, content), _inner(content)
        averages = [name for name in inner if _AVERAGE.fullmatch(name)]
        if state and not averages:
            return _plain_names(path, state)
        name = _choice(path, averages, list(inner))
        if len(inner) > 1 or state:
            there = ", ".join([*(["its own tensors"] if state else []), *inner])
            logging.getLogger(__name__).warning("%s: of %s the weights are taken from %s", path, there, name)
        content = inner[name]
    raise ValueError(f"{path} is nested too deeply")


def indices(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """The numbers, once each and in their order, that a pattern finds in the keys of a state dict."""
    return sorted({int(found[1]) for key in state if (found := re.match(pattern, key))})


def shape_of(state: Mapping[str, Tensor], key: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor; ValueError where it is missing or has another number of sides than `rank`."""
    if key not in state:
        raise ValueError(f"no checkpoint of this kind: key {key} is missing")
    if state[key].ndim != rank:
        raise ValueError(f"key {key} has the shape {tuple(state[key].shape)}; one of {rank} sides belongs here")
    return tuple(state[key].shape)


def _choice(path: str, averages: list[str], names: list[str]) -> str:
    ranked = averages or [name for name in _WEIGHTS if name in names][:1] or names
    if not ranked:
        raise ValueError(f"{path} is no state dict of tensors")
    if len(ranked) > 1:
        there = ", ".join(ranked[:10])
        raise ValueError(f"{path} holds several state dicts ({there}); save the one to use in a file alone")
    return ranked[0]


def _tensors(path: str, content: object) -> State:
    """The weights among the entries of a mapping; none where no name has the point that a module's name ends with."""
    entries = dict(_entries(content))
    found = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    if not any(isinstance(key, str) and "." in key for key in found):
        return {}
    for key in found:
        if not is_name(key):
            raise ValueError(f"{path}: a key is {short(key)}; it must be a text of 1 to {_LONGEST} characters")
    return {key: value for key, value in found.items() if "." in key or value.ndim}  # not a counter


def _inner(content: object) -> dict[str, Any]:
    """What may be a state dict in a mapping: mappings in it that hold tensors, and its keys `ema.*` as one."""
    found: dict[str, Any] = {}
    for key, value in _entries(content):
        if is_name(key) and not _OTHER.fullmatch(key) and _holds_tensors(value, set()):
            found[key] = value
    for key, value in _entries(content):
        head, _, rest = key.partition(".") if is_name(key) else ("", "", "")
        if "." in rest and isinstance(value, Tensor) and _AVERAGE.fullmatch(head):
            found.setdefault(head, {})[rest] = value
    return found


def _entries(content: object) -> Iterator[tuple[Any, Any]]:
    return iter(content.items() if isinstance(content, Mapping) else ())


def is_name(key: object) -> bool:
    """Whether a key is a text that a message can hold."""
    return isinstance(key, str) and 0 < len(key) <= _LONGEST and key.isprintable()


def _holds_tensors(value: object, seen: set[int], depth: int = 0) -> bool:
    if id(value) in seen or not isinstance(value, Mapping) or depth == _DEEPEST:
        return False
    seen.add(id(value))
    return any(isinstance(inner, Tensor) or _holds_tensors(inner, seen, depth + 1) for inner in value.values())


def _plain_names(path: str, state: State) -> State:
    """The state dict without what a wrapper put before every name, or torch.compile inside one."""
    plain = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    while prefix := _common(plain):
        plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    if len(plain) != len(state) or "" in plain:
        raise ValueError(f"{path}: two of its keys have the same name behind a wrapper's prefix")
    return plain


def _common(state: State) -> str | None:
    """The wrapper's prefix before every name of a weight, if there is one."""
    names = [key for key in state if "." in key]
    return next((p for p in _WRAPPERS if names and all(name.startswith(p) for name in names)), None)
