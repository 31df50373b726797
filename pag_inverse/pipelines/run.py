"""The run of the pipeline command: pictures in, pictures of a pipeline under PAG out."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pag_inverse.data.arrays import read_mask
from pag_inverse.data.images import list_images, png_bytes, read_image
from pag_inverse.pipelines.load import fingerprint, load_pipeline
from pag_inverse.pipelines.presets import PIPELINES, Preset, preset
from pag_inverse.runtime.devices import check_device
from pag_inverse.runtime.streams import stream_seed
from pag_inverse.settings.files import check_file
from pag_inverse.settings.pipeline import PipelineRequest
from pag_inverse.storage.files import file_sha256, sha256
from pag_inverse.storage.places import check_apart, check_writable
from pag_inverse.storage.run_store import RunStore

SMALLEST = 16  # pixels a side
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def pipeline_run(
    request: PipelineRequest,
    inputs: Path,
    output: Path,
    *,
    mask: Path | None = None,
    weights: Path | None = None,
    controlnet: Path | None = None,
    download: bool = False,
) -> int:
    """Run a pipeline on a picture or a folder of pictures; 0 where all came out, 1 where one is not finite.

    ValueError: what does not fit. Nothing is written before the pictures, the mask and the weights were found good.
    """
    chosen = preset(request.name)
    _check_needs(chosen, mask, controlnet)
    check_device(request.device)
    check_writable(output)
    check_apart(output, [path for path in (inputs, mask) if path is not None])
    pictures = _pictures(inputs)
    hidden = None if mask is None else ~read_mask(mask)
    for path, picture in pictures.items():
        _check_picture(path, picture, hidden)
    pipeline = load_pipeline(
        chosen,
        weights=weights,
        controlnet=controlnet,
        s=request.s,
        layers=request.layers,
        cfg=request.cfg,
        device=request.device,
        dtype=DTYPES[request.precision],
        download=download,
    )
    described = {
        **_settings(request, chosen),
        "weights_sha256": fingerprint(pipeline),
        "mask_sha256": None if mask is None else file_sha256(mask),
    }
    made_of = {path.stem: sha256(picture.tobytes()) for path, picture in pictures.items()}
    store = RunStore(output, kind="pipeline", settings=described, told=("device",))
    store.check(False, made_of, [f"{name}_{request.samples - 1}.png" for name in made_of])
    with store.open():
        survey = store.survey(made_of, made_of)
        for sentence in survey.damaged:
            print(sentence, file=sys.stderr)
        left = set(survey.pending)
        if len(left) < len(pictures):
            print(f"{len(pictures) - len(left)} of {len(pictures)} already there", file=sys.stderr)
        for path, picture in pictures.items():
            if path.stem in left:
                _make(store, pipeline, request, chosen, path.stem, picture, hidden, made_of[path.stem])
    return _report(store)


def _settings(request: PipelineRequest, chosen: Preset) -> dict[str, Any]:
    """The request with the preset's scale and layers where it names none."""
    s = chosen.s if request.s is None else request.s
    return {**asdict(request), "s": s, "layers": list(chosen.layers if request.layers is None else request.layers)}


def _report(store: RunStore) -> int:
    """Where the pictures lie and which failed; 1 if one did."""
    print(f"written to {store.folder}")
    for name, error in store.failures().items():
        print(f"pipeline: {name} {error}", file=sys.stderr)
    return 1 if store.failures() else 0


def call_pipeline(
    pipeline: Any, request: PipelineRequest, picture: np.ndarray[Any, Any], hidden: Any, generator: torch.Generator
) -> np.ndarray[Any, Any]:
    """One picture (3, H, W) in [-1, 1] of a pipeline, for a picture of the same range; sides are those of `cropped`."""
    chosen = PIPELINES[request.name]
    picture = cropped(picture, pipeline.vae_scale_factor)
    given: dict[str, Any] = {
        "prompt": request.prompt,
        "image": torch.from_numpy(np.ascontiguousarray(picture + 1) / 2)[None],  # diffusers' range
        "num_inference_steps": request.steps,
        "guidance_scale": request.cfg,
        "generator": generator,
        "output_type": "np",
    }
    _, height, width = picture.shape
    if chosen.kind == "upscale":
        given["noise_level"] = request.noise_level
    else:
        given |= {"height": height, "width": width}
        given["pag_scale"] = chosen.s if request.s is None else request.s
    if chosen.kind == "inpaint":
        given["mask_image"] = torch.from_numpy(cropped(hidden[None].astype(np.float32), pipeline.vae_scale_factor))[
            None
        ]
    image = pipeline(**given).images[0]
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) * 2 - 1


def cropped(picture: np.ndarray[Any, Any], multiple: int) -> np.ndarray[Any, Any]:
    """The central part of (C, H, W) whose sides divide by `multiple`."""
    sides = [side // multiple * multiple for side in picture.shape[1:]]
    top, left = ((side - kept) // 2 for side, kept in zip(picture.shape[1:], sides, strict=True))
    return picture[:, top : top + sides[0], left : left + sides[1]]


def _make(
    store: RunStore,
    pipeline: Any,
    request: PipelineRequest,
    chosen: Preset,
    name: str,
    picture: np.ndarray[Any, Any],
    hidden: Any,
    digest: str,
) -> None:
    """All samples of one picture, and its line."""
    files = {}
    for sample in range(request.samples):
        generator = torch.Generator().manual_seed(stream_seed(request.seed, name, "sampling", sample))
        made = call_pipeline(pipeline, request, picture, hidden, generator)
        if not math.isfinite(float(made.sum())):
            store.finish(name, {"error": f"sample {sample} is not finite", "input_sha256": digest})
            return
        files[f"sample_{sample}"] = (f"{name}_{sample}.png", png_bytes(made))
        print(f"{name}: sample {sample + 1} of {request.samples}", file=sys.stderr)
    store.finish(name, {"input_sha256": digest}, files)


def _check_needs(chosen: Preset, mask: Path | None, controlnet: Path | None) -> None:
    if (chosen.kind == "inpaint") != (mask is not None):
        wanted = "needs --mask, white = known" if mask is None else "takes no --mask; leave it out"
        raise ValueError(f"the {chosen.kind} pipeline {wanted}")
    if controlnet is not None and chosen.controlnet is None:
        raise ValueError(f"the {chosen.kind} pipeline takes no --controlnet; leave it out")


def _pictures(inputs: Path) -> Mapping[Path, np.ndarray[Any, Any]]:
    if not inputs.is_dir():
        check_file(inputs)
    paths = list_images(inputs) if inputs.is_dir() else [inputs]
    names = [path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two pictures are named {name}; their results would overwrite each other")
    return {path: read_image(path) for path in paths}


def _check_picture(path: Path, picture: np.ndarray[Any, Any], hidden: Any) -> None:
    if min(picture.shape[1:]) < SMALLEST:
        raise ValueError(f"{path}: {picture.shape[1]} x {picture.shape[2]} pixels; a side needs {SMALLEST} or more")
    if hidden is not None and hidden.shape != picture.shape[1:]:
        raise ValueError(
            f"the mask has {hidden.shape[0]} x {hidden.shape[1]} pixels, but {path.name} has {picture.shape[1]} x "
            f"{picture.shape[2]}: resize the mask to the picture's size"
        )
