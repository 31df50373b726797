"""LPIPS from weights that are on this machine: nothing is fetched."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What torch's reader is known to raise on a file that holds no tensors.
_DAMAGED = (OSError, RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError)
BACKBONES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


class Unavailable(Exception):
    """A metric that cannot be computed here: why, and what would mend it."""


class Lpips:
    """The `lpips` package's distance, version 0.1, of two pictures at their own size; 0 where they are equal."""

    def __init__(self, net: str = "vgg", weights: Path | None = None, device: str = "cpu") -> None:
        """`weights`: torchvision's state dict of the backbone; by default where torch.hub keeps it. Unavailable tells
        what is missing."""
        path = weights or _kept(BACKBONES[net])
        if not path.is_file():
            raise Unavailable(f"no {BACKBONES[net]} at {path}; give its place with --lpips-weights")
        self.net, self.device, self._model = net, device, _build(net, path).to(device)

    def __call__(self, picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
        """Of two pictures (H, W, 3), uint8."""
        import torch

        with torch.no_grad():
            return float(self._model(self._tensor(picture), self._tensor(truth)))

    def _tensor(self, picture: NDArray[np.uint8]) -> Any:
        import torch

        image = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)
        return image[None].to(self.device)


def read_weights(path: Path) -> dict[str, Any]:
    """A state dict, read without running code; Unavailable where it is none."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise Unavailable(f"{path}: not readable as weights") from error
    if not isinstance(found, dict):
        raise Unavailable(f"{path}: not a state dict")
    return found


def _kept(name: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _build(net: str, path: Path) -> Any:
    """The package's network with its own linear heads and the backbone's weights, which it would fetch."""
    import lpips

    found = read_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    wanted = model.net.state_dict()  # slice1.0.weight is torchvision's features.0.weight
    own = {name: found.get(f"features.{name.partition('.')[2]}") for name in wanted}
    if any(t is None or t.shape != wanted[name].shape for name, t in own.items()):
        raise Unavailable(f"{path}: not torchvision's weights of {net}")
    model.net.load_state_dict(own)
    return model.requires_grad_(False)
