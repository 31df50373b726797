"""Random streams keyed by (seed, image id, purpose, sample), so that an image's result depends on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

PURPOSES = ("operator", "measurement", "sampling", "class", "perturbation")


def stream_seed(seed: int, image_id: str, purpose: str, sample: int = 0) -> int:
    """A 63-bit seed of its own for each key; only that of sampling depends on `sample`."""
    if purpose not in PURPOSES:
        raise ValueError(f"unknown stream {purpose!r}; there are {', '.join(PURPOSES)}")
    sample = sample if purpose == "sampling" else 0
    digest = hashlib.sha256(f"{seed}|{image_id}|{purpose}|{sample}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def operator_rng(seed: int, image_id: str) -> np.random.Generator:
    """The numpy generator that draws an image's box or kernel."""
    return np.random.default_rng(stream_seed(seed, image_id, "operator"))


def batch_draw(seeds: Sequence[int], device: torch.device | str = "cpu") -> Callable[[tuple[int, ...]], Tensor]:
    """A function (B, ...) -> N(0, 1) whose row b comes from the generator of seeds[b] alone, made on the processor."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(shape: tuple[int, ...]) -> Tensor:
        if shape[0] != len(generators):
            raise ValueError(f"{shape[0]} rows asked of {len(generators)} streams")
        return torch.stack([torch.randn(shape[1:], generator=g, dtype=torch.float32) for g in generators]).to(device)

    return draw


def recorded_draw(tensors: Sequence[Tensor]) -> Callable[[tuple[int, ...]], Tensor]:
    """A draw that replays a list, in order; ValueError where a shape differs or the list ends."""
    left: Iterator[Tensor] = iter(tensors)

    def draw(shape: tuple[int, ...]) -> Tensor:
        tensor = next(left, None)
        if tensor is None or tuple(tensor.shape) != tuple(shape):
            found = "none is left" if tensor is None else f"the next one is {tuple(tensor.shape)}"
            raise ValueError(f"a draw of {tuple(shape)} was asked; {found}")
        return tensor

    return draw
