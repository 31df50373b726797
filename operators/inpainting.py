"""Inpainting: some pixels are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor

from operators.base import Array, Operator, Projection, Shape
from operators.validation import Count, Whole, Wholes, as_tensor, check_shape, settings

__all__ = ["BoxInpainting", "BoxInpaintingSettings", "Inpainting", "draw_box", "random_mask"]

Box = tuple[int, int, int, int]


class Inpainting(Operator):
    """Pixels are kept where a mask is 1, and are zero elsewhere: y = m x (Ahn et al. 2024, Tables 5 and 7).

    `mask` is (H, W), (B, H, W) or (B, 1, H, W), 1 = known, 0 = missing; a single mask serves every image.
    The adjoint is the operator itself. `project` with "published" has T = identity, x - m x + y: known pixels
    are those of y, and what y holds in the hole (noise, where it was added there too) is added to x. With
    "adjoint" it is x - m x + m y, the orthogonal projection onto the images that agree with y.
    ValueError: a mask that does not fit in_shape, has entries other than 0 and 1, or knows no pixel of an image.
    """

    per_image = ("mask",)

    def __init__(self, mask: Array, in_shape: Shape, *, project: str = "published") -> None:
        super().__init__(in_shape, in_shape, project=project)
        self.mask = _check_mask(mask, self.in_shape)

    def arrays(self, b: int) -> dict[str, NDArray[Any]]:
        """{"mask": (H, W), uint8}, 1 = known, of image b."""
        return {"mask": self._own("mask", b)[0].detach().cpu().numpy().astype(np.uint8)}

    def observation_mask(self, y: Tensor) -> Tensor:
        """The mask at the shape of y: 1 = known, 0 = missing."""
        self._check(y, self.out_shape, "measurements")
        return self.mask.to(y).expand_as(y)

    def _forward(self, x: Tensor) -> Tensor:
        # Not m * x: what is missing may be anything, NaN included.
        return torch.where(self.mask.to(x.device) > 0, x, torch.zeros((), dtype=x.dtype, device=x.device))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _entries(self) -> Tensor:
        return self.mask

    def _published_glue(self, y: Tensor) -> Tensor:
        return y


def _check_position(position: tuple[int, ...]) -> Box:
    if len(position) != 4 or min(position[:2]) < 0 or min(position[2:]) < 1:
        raise ValueError("it must be top, left, height and width in pixels, the last two at least 1")
    top, left, height, width = position
    return top, left, height, width


@settings
class BoxInpaintingSettings:
    """The missing box: `box` pixels a side (None = half the image's sides), drawn for each image at least `margin`
    pixels from every border; `position` (top, left, height, width) in pixels fixes it instead; `project` as in
    `Operator`."""

    box: Count | None = None
    margin: Whole = 16
    position: Annotated[Wholes, AfterValidator(_check_position)] | None = None
    project: Projection = "published"


class BoxInpainting(Inpainting):
    """Inpainting of one box in each image (Ahn et al. 2024, Tables 5 and 7: half of the image's sides).

    `boxes` are (top, left, height, width) in pixels, one for each image, or one for all of them.
    ValueError: no box, or one that does not lie inside the image, or covers it.
    """

    per_image = ("boxes",)
    Settings: ClassVar[type] = BoxInpaintingSettings

    def __init__(self, in_shape: Shape, boxes: Sequence[Box], *, project: str = "published") -> None:
        if not boxes:
            raise ValueError("no box: give one for all images, or one for each")
        _, height, width = check_shape(in_shape)
        mask = np.ones((len(boxes), 1, height, width), dtype=np.float32)
        for hole, (top, left, rows, columns) in zip(mask[:, 0], boxes, strict=True):
            inside = 0 <= top < top + rows <= height and 0 <= left < left + columns <= width
            if not inside:
                box = f"top {top}, left {left}, height {rows}, width {columns}"
                raise ValueError(f"box ({box}) does not lie inside the image of {height} x {width} pixels")
            hole[top : top + rows, left : left + columns] = 0.0
            if not hole.any():
                raise ValueError(f"box ({rows} x {columns}) covers the whole image of {height} x {width} pixels")
        super().__init__(mask, in_shape, project=project)
        self.boxes = tuple(boxes)

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: BoxInpaintingSettings, rngs: Sequence[np.random.Generator]
    ) -> BoxInpainting:
        if settings.position is not None:
            return cls(in_shape, [_check_position(settings.position)], project=settings.project)
        margin = settings.margin
        if settings.box is None:  # half of a small picture leaves less room than the margin
            margin = min(margin, *((side - side // 2) // 2 for side in in_shape[1:]))
        boxes = [draw_box(in_shape, rng, settings.box, margin) for rng in rngs]
        return cls(in_shape, boxes, project=settings.project)


def draw_box(in_shape: Shape, rng: np.random.Generator, side: int | None = None, margin: int = 16) -> Box:
    """A box (top, left, height, width) in pixels, at least `margin` from every border.

    top is uniform in [margin, H - height - margin), left likewise; `side` None is half the image. Where the
    box fits in one way only, it lies there. ValueError where it does not fit.
    """
    _, height, width = check_shape(in_shape)
    rows, columns = (height // 2, width // 2) if side is None else (side, side)
    spare = min(height - rows, width - columns) - 2 * margin
    if spare < 0 or rows < 1 or columns < 1:
        raise ValueError(
            f"a box of {rows} x {columns} with a margin of {margin} does not fit {height} x {width} pixels; "
            "take a smaller box or margin"
        )
    top = rng.integers(margin, max(height - rows - margin, margin + 1))
    left = rng.integers(margin, max(width - columns - margin, margin + 1))
    return int(top), int(left), rows, columns


def random_mask(
    in_shape: Shape, rng: np.random.Generator, lowest: float = 0.3, highest: float = 0.7
) -> NDArray[np.float32]:
    """A mask (H, W), 1 = known, with a share of missing pixels drawn from U(lowest, highest)."""
    _, height, width = check_shape(in_shape)
    if not 0.0 <= lowest <= highest <= 1.0:
        raise ValueError(f"shares are {lowest} to {highest}; they are 0 <= lowest <= highest <= 1")
    missing = int(height * width * rng.uniform(lowest, highest))
    mask = np.ones(height * width, dtype=np.float32)
    mask[rng.choice(height * width, size=missing, replace=False)] = 0.0
    return mask.reshape(height, width)


def _check_mask(mask: Array, in_shape: Shape) -> Tensor:
    """A user's mask as (B, 1, H, W), or (1, 1, H, W) for all images."""
    _, height, width = in_shape
    values = as_tensor(mask, "mask")
    shape = tuple(values.shape)
    if values.ndim == 4 and shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (2, 3) or tuple(values.shape[-2:]) != (height, width):
        raise ValueError(f"mask of shape {shape}; it is ({height}, {width}), or (B, 1, {height}, {width})")
    if not bool(((values == 0) | (values == 1)).all()):
        raise ValueError("mask holds other values than 0 (missing) and 1 (known)")
    empty = ~values.flatten(-2).any(dim=-1)
    if bool(empty.any()):
        which = f" {int(empty.nonzero()[0])}" if values.ndim == 3 else ""
        raise ValueError(f"mask{which} has no known pixel: nothing is measured; an entry of it must be 1 (known)")
    return values.reshape(-1, 1, height, width).to(torch.float32)
