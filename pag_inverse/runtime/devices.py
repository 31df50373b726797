"""Devices by name."""

from __future__ import annotations

import re

import torch


def check_device(device: str | torch.device) -> torch.device:
    """The device of a name (cpu, mps, cuda, cuda:N, meta); ValueError where this machine does not have it."""
    name = str(device)
    if not re.fullmatch(r"cpu|mps|meta|cuda(:\d+)?", name):
        raise ValueError(f"device is {name!r}; it must be cpu, cuda, cuda:N or mps")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ValueError(f"device {name}: this machine has no usable GPU; there is cpu")
        if int(name.partition(":")[2] or 0) >= count:
            raise ValueError(f"device {name}: this machine has {count} GPUs; the first is cuda:0")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps: not on this machine; there is cpu")
    return torch.device(name)
