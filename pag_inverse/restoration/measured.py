"""Measurements of a user's own: read with their masks, kernels and truths, and their operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operators import Blur, Inpainting, Jpeg, MotionBlur, Operator, RandomInpainting, make_operator, operator_class
from pag_inverse.data.arrays import read_kernel, read_mask, read_measurement
from pag_inverse.data.files import check_no_run
from pag_inverse.data.holes import check_hole, grown, mask_notices, opaque, without_box, without_colour
from pag_inverse.data.images import SUFFIXES, is_image
from pag_inverse.restoration.compression import Compression, read_compression
from pag_inverse.restoration.request import SolveRequest
from pag_inverse.restoration.subjects import OwnArrays, Subject, make_subject, read_all
from pag_inverse.settings import TaskConfig
from pag_inverse.settings.request import read_colour
from pag_inverse.storage.files import sha256

GROWN = 2  # pixels around a colour that is removed: its edges are mixed with the picture
NAMED = 2  # files of many that a notice names
READ = {*SUFFIXES, ".npy"}


def read_shared(request: SolveRequest) -> OwnArrays:
    """The mask and the kernel of all measurements, of those that are files; ValueError where a file is none."""
    mask, kernel = (path if path and not path.is_dir() else None for path in (request.mask, request.kernel))
    return OwnArrays(
        None if mask is None else _read_mask(request, mask),
        None if kernel is None else read_kernel(kernel),
        str(mask or ""),
        str(kernel or ""),
    )


def read_measurements(request: SolveRequest, task: TaskConfig, shared: OwnArrays) -> list[Subject]:
    """The measurements of a request with all that belongs to them.

    ValueError names the first file that does not fit, or is not there.
    """
    assert request.measurement is not None
    paths = _listed(request.measurement)
    return read_all(request, paths, lambda path: _read(request, task, shared, path))


def _read(request: SolveRequest, task: TaskConfig, shared: OwnArrays, path: Path) -> Subject:
    subject = make_subject(path.stem, str(path), read_measurement(path))
    own = shared
    if request.mask is not None and shared.mask is None:
        found = _partner(request.mask, path.stem, "mask")
        own = replace(own, mask=_read_mask(request, found), mask_from=str(found))
    if request.kernel is not None and shared.kernel is None:
        found = _partner(request.kernel, path.stem, "kernel")
        own = replace(own, kernel=read_kernel(found), kernel_from=str(found))
    notices: list[str] = []
    if own.mask is None and issubclass(operator_class(task.operator.name), Inpainting):
        hole, notices = _find_hole(request, subject, path)
        own = own if hole is None else replace(own, mask=hole, mask_from=str(path))
    elif own.mask is not None and own.mask.shape == subject.image.shape[1:]:
        notices = mask_notices(
            subject.image,
            own.mask,
            white_is_missing=request.mask_convention == "white-missing",
            scattered=issubclass(operator_class(task.operator.name), RandomInpainting),
        )
    if operator_class(task.operator.name) is Jpeg:
        own = replace(own, compression=read_compression(path))
        notices = [_compression_notice(task, own.compression)]
    truth = None if request.truth is None else _read_truth(request.truth, path.stem)
    parts = [subject.sha256, *_without(own, shared).hashes().values()]
    parts += [] if own.compression is None else [str(own.compression)]
    parts += [] if truth is None else [sha256(truth.tobytes())]
    digest = subject.sha256 if len(parts) == 1 else sha256("".join(parts).encode())
    return replace(subject, own=own, truth=truth, sha256=digest, notices=tuple(notices))


def _compression_notice(task: TaskConfig, found: Compression | None) -> str:
    if found is not None:
        return f"the file was compressed with {found}"
    settings = task.operator.settings
    return (
        f"the file is no JPEG, and quality {settings['quality']} is the task's: for another one, take the JPEG or "
        "a copy of the task's file"
    )


def _without(own: OwnArrays, shared: OwnArrays) -> OwnArrays:
    """The arrays that are a measurement's own: the others are in the settings of the run."""
    mask = None if own.mask is shared.mask else own.mask
    return OwnArrays(mask, None if own.kernel is shared.kernel else own.kernel)


def _find_hole(request: SolveRequest, subject: Subject, path: Path) -> tuple[NDArray[np.bool_] | None, list[str]]:
    """The mask of a measurement that a box, a colour or its transparent part tells, and what is said of it."""
    image, notices = subject.image, []
    if request.box is not None:
        known = without_box(image.shape, request.box)
    elif request.remove_colour is not None:
        known = without_colour(image, read_colour(request.remove_colour), request.colour_tolerance)
        grow = GROWN if request.grow is None else request.grow
        notices = [f"{request.remove_colour} and {grow} pixels around it are the hole: {_share(grown(known, grow))}"]
    else:
        found = opaque(path)
        if found is None:
            return None, []
        known, notices = found, [f"the transparent pixels are the hole: {_share(found)}"]
    known = grown(known, _grow(request))
    check_hole(known, str(path))
    return known, notices


def _share(known: NDArray[np.bool_]) -> str:
    return f"{100 * (1 - known.mean()):.2g} % of the picture"


def _grow(request: SolveRequest) -> int:
    return request.grow if request.grow is not None else GROWN if request.remove_colour is not None else 0


def _read_mask(request: SolveRequest, path: Path) -> NDArray[np.bool_]:
    known = read_mask(path, white_is_missing=request.mask_convention == "white-missing")
    known = grown(known, _grow(request))
    check_hole(known, str(path))
    return known


def _read_truth(given: Path, name: str) -> NDArray[np.float32]:
    path = _partner(given, name, "truth") if given.is_dir() else given
    return np.ascontiguousarray(read_measurement(path), dtype=np.float32)


def _listed(given: Path) -> list[Path]:
    """The measurements of a folder, sorted by name; or the one file."""
    if not given.is_dir():
        return [given]
    check_no_run(given)
    found = sorted(path for path in given.iterdir() if path.is_file() and _is_readable(path))
    if not found:
        raise ValueError(f"{given}: no measurements in it ({', '.join(sorted(READ))})")
    return found


def _is_readable(path: Path) -> bool:
    return is_image(path) or (path.suffix.lower() == ".npy" and not path.name.startswith("."))


def _partner(folder: Path, name: str, what: str) -> Path:
    """The file of a folder that has the name of a measurement; ValueError where there is none, or several."""
    found = sorted(path for path in folder.iterdir() if path.stem == name and path.suffix.lower() in READ)
    if len(found) != 1:
        several = f"{len(found)} files" if found else "no file"
        raise ValueError(
            f"{folder}: {several} for the {what} of {name}; it must hold one of that name, such as {name}.png"
        )
    return found[0]


def measurement_operator(own: OwnArrays, task: TaskConfig, shape: tuple[int, ...]) -> Operator:
    """The operator of a user's measurement (3, H, W): its mask, kernel or compression, the task's settings else.

    ValueError: a mask or kernel that the task's operator has no use for, or one that is missing or does not fit.
    """
    name, settings = task.operator.name, task.operator.settings
    kind, in_shape = operator_class(name), (3, shape[1], shape[2])
    project = str(settings.get("project", "published"))
    if own.mask is not None and not issubclass(kind, Inpainting):
        raise ValueError(f"--mask goes with an inpainting task, not with {task.name}")
    if own.kernel is not None and not issubclass(kind, Blur):
        raise ValueError(f"--kernel goes with a deblurring task, not with {task.name}")
    try:
        if own.mask is not None:
            _check_mask_size(own.mask.shape, in_shape)
            return Inpainting(own.mask, in_shape, project=project)
        if own.kernel is not None:
            _check_size(own.kernel.shape, in_shape)
            return Blur(own.kernel, in_shape, project=project)
    except ValueError as error:
        raise ValueError(f"{own.mask_from or own.kernel_from}: {error}") from error
    if issubclass(kind, Inpainting):
        raise ValueError(
            f"--measurement with the task {task.name} needs --mask, --box, --remove-colour, or transparent pixels"
        )
    if issubclass(kind, MotionBlur):
        raise ValueError(f"--measurement with the task {task.name} needs --kernel")
    if own.compression is not None:
        settings = {**settings, "quality": own.compression.quality, "subsampling": own.compression.subsampling}
    return make_operator(name, kind.image_shape(in_shape, kind.read_settings(settings)), settings, [])


def _check_mask_size(mask: tuple[int, ...], image: tuple[int, int, int]) -> None:
    """ValueError for a mask of another size than the picture."""
    if mask != image[1:]:
        raise ValueError(
            f"the mask has {mask[0]} x {mask[1]} pixels, the picture {image[1]} x {image[2]}: "
            "resize the mask to the picture's size"
        )


def _check_size(kernel: tuple[int, ...], image: tuple[int, int, int]) -> None:
    """ValueError for a kernel that is larger than the picture."""
    if any(part > side for part, side in zip(kernel, image[1:], strict=True)):
        raise ValueError(
            f"the kernel has {kernel[0]} x {kernel[1]} pixels, the picture {image[1]} x {image[2]}: "
            "cut the kernel to the part that is not zero"
        )


def check_truth(subject: Subject, operator: Operator) -> None:
    """ValueError where the truth has another size than the restoration will have."""
    if subject.truth is not None and subject.truth.shape != tuple(operator.in_shape):
        (_, height, width), (_, rows, columns) = subject.truth.shape, operator.in_shape
        raise ValueError(f"{subject.name}: its truth has {height} x {width} pixels, the restoration {rows} x {columns}")


def unused_notices(request: SolveRequest) -> list[str]:
    """The masks, kernels and truths in folders that belong to no measurement: a line for each kind."""
    if request.measurement is None or not request.measurement.is_dir():
        return []
    names, found = {path.stem for path in _listed(request.measurement)}, []
    for what, folder in (("mask", request.mask), ("kernel", request.kernel), ("truth", request.truth)):
        if folder is None or not folder.is_dir():
            continue
        unused = sorted(path.name for path in folder.iterdir() if _is_readable(path) and path.stem not in names)
        if unused:
            files = "file belongs" if len(unused) == 1 else "files belong"
            shown = ", ".join(unused[:NAMED]) + (", ..." if len(unused) > NAMED else "")
            found.append(
                f"--{what} {folder}: {len(unused)} {files} to no measurement ({shown}); the names must be equal"
            )
    return found


def kernel_notices(request: SolveRequest, task: TaskConfig) -> Sequence[str]:
    """That the kernel of a task is taken for a measurement's, where it is."""
    if request.measurement is None or request.kernel is not None:
        return []
    if not issubclass(operator_class(task.operator.name), Blur):
        return []
    settings = ", ".join(f"{key} {value}" for key, value in task.operator.settings.items() if key != "project")
    return [f"the kernel is the task's ({settings}); --kernel gives the one of your picture"]
