"""The pipeline command on tiny random pipelines: what it writes, what decides it, and what it refuses."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import pag_inverse.pipelines
from pag_inverse.cli import pipeline as command
from pag_inverse.pipelines import PIPELINES, preset


def draw(path: Path, width: int, height: int, seed: int = 0) -> Path:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    PIL.Image.fromarray(levels).save(path)
    return path


@pytest.fixture
def run(folders: dict[str, Path], tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Runs the command of a kind on a picture or folder; the exit status and the output folder."""

    def made(kind: str, picture: Path, *flags: object, output: str = "out") -> tuple[int, Path]:
        given = ["--weights", folders[kind], "--input", picture, "--output", tmp_path / output, "--steps", 2, *flags]
        given += ["--controlnet", folders["control"]] if kind == "controlnet" else []
        return command.main([kind, *map(str, given)]), tmp_path / output

    return made


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    levels = np.full((34, 37), 255, dtype=np.uint8)
    levels[8:20, 8:20] = 0
    PIL.Image.fromarray(levels).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def picture(path: Path) -> Any:
    return np.asarray(PIL.Image.open(path))


def test_the_scales_are_the_papers() -> None:
    assert {name: one.s for name, one in PIPELINES.items()} == {
        "pose": 2.5, "depth": 1.0, "inpaint": 1.5, "upscale": 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="pose, depth, inpaint, upscale"):
        preset("sketch")


def test_controlnet_writes_pictures_of_the_controls_size(run: Any, tmp_path: Path) -> None:
    status, out = run("controlnet", draw(tmp_path / "p.png", 37, 34), "--samples", 2)
    assert status == 0
    pair = [picture(out / f"p_{sample}.png") for sample in (0, 1)]
    assert pair[0].shape == (34, 36, 3) and (pair[0] != pair[1]).any()
    told = json.loads((out / "manifest.json").read_text())
    assert told["settings"]["s"] == 2.5 and told["settings"]["name"] == "pose" and told["images"]["p"]["files"]
    _, depth = run("controlnet", tmp_path / "p.png", "--control", "depth", output="depth")
    assert json.loads((depth / "manifest.json").read_text())["settings"]["s"] == 1.0


def test_a_result_depends_on_the_picture_alone(run: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "in").mkdir()
    draw(tmp_path / "in" / "a.png", 20, 24), draw(tmp_path / "in" / "b.png", 24, 20, seed=1)
    status, together = run("upscale", tmp_path / "in")
    assert status == 0
    assert capsys.readouterr().err.splitlines() == ["a: sample 1 of 1", "b: sample 1 of 1"]  # no word of the libraries
    _, alone = run("upscale", tmp_path / "in" / "b.png", output="alone")
    assert (together / "b_0.png").read_bytes() == (alone / "b_0.png").read_bytes()
    assert picture(together / "a_0.png").shape == (48, 40, 3)  # twice: the tiny decoder has one level, the real one two
    first = (together / "a_0.png").stat().st_mtime_ns
    assert run("upscale", tmp_path / "in")[0] == 0  # finished: nothing is made again
    assert "2 of 2 already there" in capsys.readouterr().err
    assert (together / "a_0.png").stat().st_mtime_ns == first
    _, plain = run("upscale", tmp_path / "in" / "b.png", "--pag", 0, output="plain")
    assert (picture(plain / "b_0.png") != picture(alone / "b_0.png")).any()
    _, half = run("upscale", tmp_path / "in" / "b.png", "--precision", "bfloat16", output="half")
    difference = np.abs(picture(half / "b_0.png").astype(float) - picture(alone / "b_0.png"))
    assert 0 < difference.mean() < 4  # grey levels


def test_only_what_the_mask_hides_is_asked_of_inpainting(
    run: Any, mask: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from diffusers import StableDiffusionPAGInpaintPipeline

    given: dict[str, Any] = {}
    call = StableDiffusionPAGInpaintPipeline.__call__

    def watched(self: Any, **options: Any) -> Any:
        given.update(options)
        return call(self, **options)

    monkeypatch.setattr(StableDiffusionPAGInpaintPipeline, "__call__", watched)
    status, out = run("inpaint", draw(tmp_path / "p.png", 37, 34), "--mask", mask)
    assert status == 0 and picture(out / "p_0.png").shape == (34, 36, 3)
    hidden = given["mask_image"][0, 0].numpy()  # diffusers' masks are 1 where it paints
    assert hidden[8:20, 8:20].min() == 1 and hidden.sum() == 144
    assert given["pag_scale"] == 1.5 and given["guidance_scale"] == 1.0


@pytest.mark.parametrize(
    ("kind", "flags", "fault"),
    [
        ("inpaint", [], "needs --mask, white = known"),
        ("upscale", ["--mask", "MASK"], "takes no --mask"),
        ("upscale", ["--controlnet", "CONTROL"], "takes no --controlnet"),
        ("upscale", ["--control", "pose"], "--control goes with controlnet"),
        ("upscale", ["--pag", "-1"], "s"),
        ("upscale", ["--cfg", "0.5"], "cfg"),
        ("upscale", ["--steps", "0"], "steps"),
        ("upscale", ["--layers", "mid"], "layer 'mid' holds no self-attention"),
        ("upscale", ["--layers", "down_blocks.1.attentions.0.transformer_blocks.0.attn2"], "holds no self-attention"),
        ("upscale", ["--weights", "CONTROL"], "does not load as a StableDiffusionUpscalePipeline"),
        ("upscale", ["--weights", "nowhere"], "nowhere: no folder of weights"),
        ("inpaint", ["--mask", "MASK"], "the mask has 34 x 37 pixels, but p.png has 20 x 20"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    kind: str, flags: list[str], fault: str, folders: dict[str, Path], mask: Path, tmp_path: Path, capsys: Any
) -> None:
    named = {"MASK": str(mask), "CONTROL": str(folders["control"])}
    given = ["--weights", folders[kind], "--input", draw(tmp_path / "p.png", 20, 20), "--output", tmp_path / "out"]
    assert command.main([kind, *map(str, given), *(named.get(flag, flag) for flag in flags)]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and fault in told[0]
    assert not (tmp_path / "out").exists()


def test_weights_that_are_nowhere_are_told_with_the_remedy(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    given = ["--input", str(draw(tmp_path / "p.png", 20, 20)), "--output", str(tmp_path / "out")]
    assert command.main(["upscale", *given]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "stabilityai/stable-diffusion-x4-upscaler, or --download" in told[0]
    assert "local_files_only" not in told[0] and ".;" not in told[0]


def test_wrong_weights_are_told_without_the_advice_of_the_libraries(
    folders: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    weights = shutil.copytree(folders["upscale"], tmp_path / "weights")
    config = json.loads((weights / "unet" / "config.json").read_text())
    (weights / "unet" / "config.json").write_text(json.dumps({**config, "in_channels": 9}))
    given = ["--weights", str(weights), "--input", str(draw(tmp_path / "p.png", 20, 20)), "--output", "out"]
    assert command.main(["upscale", *given]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "does not load as a StableDiffusionUpscalePipeline" in told[0] and "shape" in told[0]
    for advice in ("ignore_mismatched_sizes", "low_cpu_mem_usage", "http"):
        assert advice not in told[0]
    assert not told[0].endswith(".")


def test_a_control_network_without_weights_is_told_in_one_line(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    logged: list[logging.LogRecord] = []  # by diffusers, which keeps the stderr that it was imported with
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", logged.append)
    monkeypatch.setattr(logging.getLogger("diffusers"), "handlers", [handler])
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    given = ["--controlnet", str(tmp_path / "control"), "--input", str(draw(tmp_path / "p.png", 20, 20))]
    assert command.main(["controlnet", *given, "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "no file named diffusion_pytorch_model" in told[0] and "allow_pickle" not in told[0]
    assert not logged


def test_a_controlnet_that_is_nowhere_is_told_without_warnings(
    tmp_path: Path, capsys: Any, monkeypatch: Any, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    given = ["--control", "pose", "--input", str(draw(tmp_path / "p.png", 20, 20)), "--output", str(tmp_path / "out")]
    assert command.main(["controlnet", *given]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not recwarn.list


def test_the_readme_is_right(folders: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    readme = Path(pag_inverse.pipelines.__file__).with_name("README.md")
    if not readme.is_file():
        pytest.skip("the README is not beside the installed package")
    text = readme.read_text(encoding="utf-8")
    known = {name for action in command.parser()._actions for name in action.option_strings}
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", text)) <= known
    shutil.copytree(folders["upscale"], tmp_path / "stable-diffusion-x4-upscaler")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"small": PIL.Image.open(draw(tmp_path / "p.png", 20, 20))}
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    exec(
        compile(code.replace("guidance_scale=1.0", "guidance_scale=1.0, num_inference_steps=2"), "README", "exec"),
        names,
    )
    assert names["images"][0].size == (40, 40)
