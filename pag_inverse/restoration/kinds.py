"""Pictures in Python: PIL images, arrays and tensors to a batch of tensors, and back to the same kind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import Grayscale, Operator
from pag_inverse.data.arrays import read_measurement
from pag_inverse.data.images import from_uint8, to_uint8

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """How a batch (B, 3, H, W) in [-1, 1] goes back to what was given."""

    back: Callable[[Tensor], Any]

    @classmethod
    def tensors(cls) -> Kind:
        """A batch of tensors stays as it is."""
        return cls(lambda x: x)


def read_kind(given: Any) -> tuple[Tensor, Kind]:
    """A picture, or a list of pictures of one size, or their paths, as floats (B, 3, H, W) in [-1, 1], and its kind.

    ValueError: another kind, another range, pictures of several sizes.
    """
    if isinstance(given, (list, tuple)):
        if not given:
            raise ValueError("no picture was given; give at least one")
        batches = [read_kind(picture) for picture in given]
        sizes = {tuple(x.shape) for x, _ in batches}
        if len(sizes) > 1 or next(iter(sizes))[0] != 1:
            raise ValueError(f"pictures of shapes {sorted(sizes)}; a list holds single pictures of one size")
        kinds = [kind for _, kind in batches]
        return torch.cat([x for x, _ in batches]), Kind(
            lambda x: [kind.back(x[b : b + 1]) for b, kind in enumerate(kinds)]
        )
    if isinstance(given, (str, Path)):
        return torch.from_numpy(read_measurement(given))[None], Kind(_to_pil)
    if isinstance(given, Tensor):
        return _read_tensor(given)
    if isinstance(given, np.ndarray):
        return _read_array(given)
    if hasattr(given, "convert") and hasattr(given, "getbands"):  # a PIL image, without importing PIL for it
        return _from_pil(given), Kind(_to_pil)
    allowed = "a path, a PIL image, an array, a tensor, or a list of them"
    raise ValueError(f"a {type(given).__name__} is no picture; give {allowed}")


def as_measured(x: Tensor, operator: Operator) -> Tensor:
    """A picture (B, 3, H, W) as a measurement by this operator: its brightness where one channel is measured."""
    return Grayscale((3, *x.shape[2:])).forward(x) if operator.out_shape[0] == 1 and x.shape[1] == 3 else x


def _read_tensor(given: Tensor) -> tuple[Tensor, Kind]:
    _check_floats(given.dtype.is_floating_point, str(given.dtype), tuple(given.shape), given.ndim in (3, 4))
    _check_range(float(given.min()), float(given.max()))
    if given.ndim == 3:
        return given[None], Kind(lambda x: x[0].to(given))
    return given, Kind(lambda x: x.to(given))


def _read_array(given: np.ndarray[Any, Any]) -> tuple[Tensor, Kind]:
    if given.dtype == np.uint8:
        batch = given if given.ndim == 4 else given[None]
        if batch.ndim != 4 or batch.shape[3] != 3:
            raise ValueError(f"an array of uint8 is (H, W, 3) or (B, H, W, 3), not {given.shape}")
        x = torch.from_numpy(np.stack([from_uint8(picture) for picture in batch]))
        if given.ndim == 3:
            return x, Kind(lambda x: to_uint8(x[0]))
        return x, Kind(lambda x: np.stack([to_uint8(image) for image in x]))
    channels = given.shape[-3] if given.ndim in (3, 4) else 0
    _check_floats(given.dtype.kind == "f", str(given.dtype), given.shape, channels in (1, 3) or given.shape[-1] != 3)
    _check_range(float(given.min()), float(given.max()))
    x = torch.from_numpy(np.ascontiguousarray(given, dtype=np.float32))
    if given.ndim == 3:
        return x[None], Kind(lambda x: x[0].cpu().numpy().astype(given.dtype))
    return x, Kind(lambda x: x.cpu().numpy().astype(given.dtype))


def _check_floats(floats: bool, dtype: str, shape: tuple[int, ...], dimensions: bool) -> None:
    if not floats or not dimensions or 0 in shape:
        raise ValueError(
            f"{dtype} of shape {shape}; a picture is uint8 (H, W, 3), or floats (3, H, W) or (B, 3, H, W) in [-1, 1]"
        )


def _check_range(low: float, high: float) -> None:
    """A measurement's noise may leave [-1, 1]; 0 to 255 is an error, and 0 to 1 gets a warning."""
    if not (low >= -10 and high <= 10):
        raise ValueError(f"floats from {low:g} to {high:g}; they must lie in [-1, 1], up to noise")
    if 0 <= low < high <= 1:
        _LOG.warning("floats from %.3g to %.3g are taken as [-1, 1]; if they are in [0, 1], give 2 * x - 1", low, high)


def _from_pil(given: Any) -> Tensor:
    import PIL.ImageOps

    from pag_inverse.data.decoding import check_depth, decode

    check_depth(given)
    return torch.from_numpy(decode(PIL.ImageOps.exif_transpose(given)).image())[None]


def _to_pil(x: Tensor) -> Any:
    import PIL.Image

    return PIL.Image.fromarray(to_uint8(x[0]))
