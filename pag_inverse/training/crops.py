"""Training pictures: which are held out, random crops of the others, and crops to validate on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pag_inverse.data.datasets import find_images
from pag_inverse.data.images import read_image, to_uint8
from pag_inverse.training.folder import is_preview


class Crops:
    """Random crops with flips at native scale, held in memory as uint8; batch k depends on (seed, k) alone.

    Several processes have different crops of the same side. A batch holds `batch` crops of the smallest side; of a
    larger side as many as have the same number of pixels. A share `recolour` of them gets other colours.
    """

    def __init__(
        self,
        files: list[Path],
        crops: tuple[tuple[int, float], ...],
        batch: int,
        seed: int,
        rank: int = 0,
        recolour: float = 0.0,
    ) -> None:
        self.sides = [side for side, _ in crops]
        self.shares = np.cumsum([share for _, share in crops]) / sum(share for _, share in crops)
        self.batch, self.seed, self.rank, self.recolour = batch, seed, rank, recolour
        pictures = [to_uint8(np.asarray(read_image(file))) for file in files]
        self.pictures = [p for p in pictures if min(p.shape[:2]) >= max(self.sides)]
        if not self.pictures:
            raise ValueError(f"no picture is at least {max(self.sides)} pixels on its short side")

    def __call__(self, step: int) -> Tensor:
        """The batch of this step, (B, 3, side, side), float32 in [-1, 1]."""
        rng = np.random.default_rng([self.seed, step])
        drawn = int(np.searchsorted(self.shares, rng.random(), side="right"))
        side = self.sides[min(drawn, len(self.sides) - 1)]  # the sum of the shares is 1 up to rounding
        if self.rank > 0:
            rng = np.random.default_rng([self.seed, step, self.rank])
        count = max(1, self.batch * min(self.sides) ** 2 // side**2)
        return torch.stack([self._crop(rng, side) for _ in range(count)])

    def _crop(self, rng: np.random.Generator, side: int) -> Tensor:
        picture = self.pictures[rng.integers(len(self.pictures))]
        top, left = (int(rng.integers(n - side + 1)) for n in picture.shape[:2])
        crop = picture[top : top + side, left : left + side]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if self.recolour and rng.random() < self.recolour:
            crop = other_colours(crop, rng)
        return torch.from_numpy(crop.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1.0)


def other_colours(crop: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A crop (H, W, 3), 0 to 255, with its channels permuted and its saturation raised 1 to 4 times, clipped.

    Photographs seldom hold smooth areas of saturated colours: a network that has not seen them draws texture there.
    """
    permuted = crop[..., rng.permutation(3)].astype(np.float32)
    grey = permuted.mean(-1, keepdims=True)
    return np.clip(grey + 4.0 ** rng.random() * (permuted - grey), 0, 255)


def split_held_out(folder: Path, share: float = 0.04, output: Path | None = None) -> tuple[list[Path], list[Path]]:
    """The pictures of a folder and those below it as (training, held out): every 1/share-th by name is held out.

    They are those of `find_images`, without the pictures that a training run has drawn and those in `output`, whatever
    links lead there.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; --data must name a folder of pictures")
    try:
        found = sorted(find_images("folder", folder).values())
    except ValueError as error:
        raise ValueError(f"--data {error}; training needs at least 2 pictures, each of a name of its own") from error
    own = None if output is None else output.resolve()
    files = [file for file in found if not is_result(file.resolve(), own)]
    if len(files) < 2:
        raise ValueError(f"{folder} holds {len(files)} pictures; training needs at least 2")
    every = max(2, round(1 / share))
    return [file for i, file in enumerate(files) if i % every], files[::every]


def is_result(file: Path, output: Path | None) -> bool:
    """Whether a picture (without links in its path) lies in `output`, or is one that a training run has drawn."""
    return (output is not None and output in file.parents) or is_preview(file)


def validation_crops(files: list[Path], side: int, count: int = 16) -> Tensor:
    """Centre crops of held-out pictures, (B, 3, side, side); ValueError where none is large enough."""
    crops = []
    for file in files[:count]:
        picture = np.asarray(read_image(file))
        top, left = ((n - side) // 2 for n in picture.shape[1:])
        if min(top, left) >= 0:
            crops.append(torch.from_numpy(np.ascontiguousarray(picture[:, top : top + side, left : left + side])))
    if not crops:
        raise ValueError(f"no held-out picture is at least {side} pixels on its short side")
    return torch.stack(crops)
