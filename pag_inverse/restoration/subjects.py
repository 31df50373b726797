"""What is to be restored: pictures to degrade, or a user's own measurement with its mask or kernel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators import Blur, GaussianBlur, Inpainting, Operator, SuperResolution
from pag_inverse.storage.records import sha256
from pag_inverse.restoration.request import DEFAULT_PHOTOGRAPH, Request
from pag_inverse.data.images import bundled_photograph, prepare, read_image


@dataclass(frozen=True)
class Subject:
    """One picture (3, size, size), or one measurement, in [-1, 1]; `name` keys its random streams and its files."""

    name: str
    source: str
    image: NDArray[np.float32]
    sha256: str


def read_subjects(request: Request, size: int) -> list[Subject]:
    """Read everything before anything is computed or written; ValueError names the first file that is no picture."""
    if request.measurement is not None:
        image = read_measurement(request.measurement)
        return [_subject(request.measurement.stem, str(request.measurement), image)]
    if not request.inputs:
        image = prepare(bundled_photograph(DEFAULT_PHOTOGRAPH), size, request.resize)
        return [_subject(DEFAULT_PHOTOGRAPH, f"scikit-image's {DEFAULT_PHOTOGRAPH}", image)]
    subjects = [_subject(p.stem, str(p), prepare(read_image(p), size, request.resize)) for p in request.inputs]
    names = [subject.name for subject in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two pictures are named {twice[0]}; their results would overwrite each other")
    return subjects


def read_measurement(path: Path) -> NDArray[np.float32]:
    """A measurement (3, H, W): a picture, or a .npy in [-1, 1] of shape (3, H, W) or (1, 3, H, W)."""
    if path.suffix != ".npy":
        return np.asarray(read_image(path), dtype=np.float32)
    array = _load_array(path)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim != 3 or array.shape[0] != 3 or not np.isfinite(array).all():
        raise ValueError(f"{path}: a measurement is a finite array (3, H, W), not {array.shape}")
    return np.asarray(array, dtype=np.float32)


def own_operator(request: Request) -> Operator:
    """The operator of the user's measurement: its mask or kernel, the task's settings otherwise."""
    assert request.measurement is not None
    _, height, width = read_measurement(request.measurement).shape
    name, settings = request.task.operator.name, request.task.operator.settings
    project, shape = str(settings["project"]), (3, height, width)
    if request.mask is not None and name != "box_inpainting":
        raise ValueError(f"--mask goes with the task box_inpainting, not with {request.task.name}")
    if name == "box_inpainting":
        assert request.mask is not None
        return Inpainting(read_grey(request.mask) >= 0.5, shape, project=project)
    if name == "super_resolution":
        scale: Any = settings["scale"]
        return SuperResolution((3, height * scale, width * scale), scale, project=project)
    if request.kernel is not None:
        kernel = read_grey(request.kernel)
        return Blur(kernel / max(kernel.sum(), 1e-12), shape, project=project)
    sizes: Any = settings
    return GaussianBlur(shape, sizes["kernel_size"], sizes["std"], project=project)


def read_grey(path: Path) -> NDArray[np.float64]:
    """A mask or kernel (H, W), not negative: a .npy, or a picture's brightness from 0 to 1."""
    array = _load_array(path) if path.suffix == ".npy" else (np.asarray(read_image(path)).mean(axis=0) + 1) / 2
    if array.ndim != 2 or not np.isfinite(array).all() or array.min() < 0:
        raise ValueError(f"{path}: a mask or kernel is a finite array (H, W) that is not negative")
    return np.asarray(array, dtype=np.float64)


def _load_array(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no array that numpy can read: {error}") from error
    if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
        raise ValueError(f"{path} holds {array.dtype}, not numbers")
    return np.asarray(array)


def _subject(name: str, source: str, image: Any) -> Subject:
    array = np.ascontiguousarray(image, dtype=np.float32)
    return Subject(name, source, array, sha256(array.tobytes()))
