"""What is to be restored: pictures to degrade, or a user's own measurement with its mask or kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators import Blur, Inpainting, MotionBlur, Operator, make_operator, operator_class
from pag_inverse.data.arrays import read_kernel, read_mask, read_measurement
from pag_inverse.data.images import bundled_photograph, prepare, read_image
from pag_inverse.restoration.request import SolveRequest
from pag_inverse.settings import TaskConfig
from pag_inverse.storage.files import npy, sha256

DEFAULT_PHOTOGRAPH = "astronaut"


@dataclass(frozen=True)
class Subject:
    """One picture (3, H, W), or one measurement, in [-1, 1]; `name` keys its random streams and its files."""

    name: str
    source: str
    image: NDArray[np.float32]
    sha256: str


def make_subject(name: str, source: str, image: Any) -> Subject:
    """A subject of an image (3, H, W) in [-1, 1]."""
    array = np.ascontiguousarray(image, dtype=np.float32)
    return Subject(name, source, array, sha256(array.tobytes()))


def read_subjects(request: SolveRequest, inputs: Sequence[Path], size: int) -> list[Subject]:
    """Read everything before anything is computed or written; ValueError names the first file that is no picture."""
    if request.measurement is not None:
        path = request.measurement
        return [make_subject(path.stem, str(path), read_measurement(path))]
    if not inputs:
        image = _prepared(bundled_photograph(DEFAULT_PHOTOGRAPH), request, size)
        return [make_subject(DEFAULT_PHOTOGRAPH, f"scikit-image's {DEFAULT_PHOTOGRAPH}", image)]
    subjects = [make_subject(p.stem, str(p), _prepared(read_image(p), request, size)) for p in inputs]
    names = [subject.name for subject in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two pictures are named {twice[0]}; their results would overwrite each other")
    return subjects


def _prepared(image: Any, request: SolveRequest, size: int) -> Any:
    """The whole picture, or its central square at `size`."""
    return image if request.whole else prepare(image, size, request.resize)


@dataclass(frozen=True)
class OwnArrays:
    """A user's mask (H, W) and kernel (h, w), as they were read once."""

    mask: NDArray[np.bool_] | None = None
    kernel: NDArray[np.float64] | None = None

    @classmethod
    def read(cls, request: SolveRequest) -> OwnArrays:
        """Those that a request names; ValueError where a file is none."""
        mask = None if request.mask is None else read_mask(request.mask)
        return cls(mask, None if request.kernel is None else read_kernel(request.kernel))

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each array that is there, by name."""
        arrays = {"mask": self.mask, "kernel": self.kernel}
        return {f"{name}_sha256": sha256(npy(array)) for name, array in arrays.items() if array is not None}


def measurement_operator(own: OwnArrays, task: TaskConfig, shape: tuple[int, ...]) -> Operator:
    """The operator of a user's measurement (3, H, W): its mask or kernel, the task's settings otherwise.

    ValueError: a mask or kernel that the task's operator has no use for, or one that is missing.
    """
    name, settings = task.operator.name, task.operator.settings
    kind, in_shape = operator_class(name), (3, shape[1], shape[2])
    project = str(settings.get("project", "published"))
    if own.mask is not None and not issubclass(kind, Inpainting):
        raise ValueError(f"--mask goes with an inpainting task, not with {task.name}")
    if own.kernel is not None and not issubclass(kind, Blur):
        raise ValueError(f"--kernel goes with a deblurring task, not with {task.name}")
    if issubclass(kind, Inpainting):
        if own.mask is None:
            raise ValueError(
                f"--measurement with the task {task.name} needs --mask; a picture with an erased region goes to both"
            )
        return Inpainting(own.mask, in_shape, project=project)
    if own.kernel is not None:
        return Blur(own.kernel, in_shape, project=project)
    if issubclass(kind, MotionBlur):
        raise ValueError(f"--measurement with the task {task.name} needs --kernel")
    return make_operator(name, kind.image_shape(in_shape, kind.read_settings(settings)), settings, [])
