"""What is to be restored: pictures to degrade, or measurements with a mask or kernel of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pag_inverse.data.images import bundled_photograph, prepare, read_image, tell_left_out
from pag_inverse.restoration.compression import Compression
from pag_inverse.restoration.request import SolveRequest
from pag_inverse.storage.files import npy, sha256

DEFAULT_PHOTOGRAPH = "astronaut"


@dataclass(frozen=True)
class OwnArrays:
    """A user's mask (H, W) and kernel (h, w), with the names of their files; how a JPEG was compressed."""

    mask: NDArray[np.bool_] | None = None
    kernel: NDArray[np.float64] | None = None
    mask_from: str = ""
    kernel_from: str = ""
    compression: Compression | None = None

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each array that is there, by name."""
        arrays = {"mask": self.mask, "kernel": self.kernel}
        return {f"{name}_sha256": sha256(npy(array)) for name, array in arrays.items() if array is not None}


@dataclass(frozen=True)
class Subject:
    """One picture (3, H, W), or one measurement, in [-1, 1]; `name` keys its random streams and its files.

    Of a measurement: its mask and kernel, the truth where there is one, the sigma that was estimated, and what a person
    should know about it.
    """

    name: str
    source: str
    image: NDArray[np.float32]
    sha256: str
    own: OwnArrays = field(default_factory=OwnArrays)
    truth: NDArray[np.float32] | None = None
    sigma: float | None = None
    notices: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[object, ...]:
        """What subjects of one batch have in common: shape, sigma, mask, kernel and compression."""
        return self.image.shape, self.sigma, id(self.own.mask), id(self.own.kernel), self.own.compression


def make_subject(name: str, source: str, image: Any) -> Subject:
    """A subject of an image (3, H, W) in [-1, 1]."""
    array = np.ascontiguousarray(image, dtype=np.float32)
    return Subject(name, source, array, sha256(array.tobytes()))


def read_subjects(request: SolveRequest, inputs: Sequence[Path], size: int) -> list[Subject]:
    """Read the pictures to degrade before anything is computed; ValueError names the first file that is no picture.

    With `skip_unreadable` such files are left out, and named in a warning.
    """
    if not inputs:
        image = _prepared(bundled_photograph(DEFAULT_PHOTOGRAPH), request, size)
        return [make_subject(DEFAULT_PHOTOGRAPH, f"scikit-image's {DEFAULT_PHOTOGRAPH}", image)]
    return read_all(request, inputs, lambda p: make_subject(p.stem, str(p), _prepared(read_image(p), request, size)))


def read_all(request: SolveRequest, paths: Sequence[Path], read: Callable[[Path], Subject]) -> list[Subject]:
    """What `read` makes of each file; ValueError: one that cannot be read, two of one name, none that can be read."""
    subjects, unread = [], []
    for path in paths:
        try:
            subjects.append(read(path))
        except ValueError as error:
            if not request.skip_unreadable:
                remedy = "; --skip-unreadable leaves such files out" if len(paths) > 1 else ""
                raise ValueError(f"{error}{remedy}") from error
            unread.append(path)
            tell_left_out([path], str(error))
    if not subjects:
        raise ValueError(f"{unread[0].parent}: none of {len(unread)} pictures can be read")
    names = [subject.name for subject in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two pictures are named {twice[0]}; their results would overwrite each other")
    return subjects


def _prepared(image: Any, request: SolveRequest, size: int) -> Any:
    """The whole picture, or its central square at `size`."""
    return image if request.whole else prepare(image, size, request.resize)
