"""Bad invocations of every command: one line on stderr, exit status 2, nothing written."""

from __future__ import annotations

import json
import os
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pag_inverse.data.images import bundled_photograph, prepare, write_png

LONG = "x" * 300
SOLVE = """
--solver dps
--solver auto
--task nothing
--task gaussian_deblur --prior nothing
--task gaussian_deblur --eta 1
--task gaussian_deblur --prior ffhq
--task {m}/thin.yaml
--task {m}/recommends.yaml
--task nothing --solver dps
--task gaussian_deblur --solver nothing
--task {m}/none.yaml --solver dps
--task {m}/broken.yaml --solver dps
--task {m}/deep.yaml --solver dps
--task {m}/pipe.yaml --solver dps
--task {m}/infinite.yaml --solver dps
--task {m}/thin.yaml --solver dps
--task {m}/tags.yaml --solver dps
--task {m} --solver dps
{t} --steps 0
{t} --steps 1001
{t} --steps 1.5
{t} --steps
{t} --samples 0
{t} --samples -1
{t} --samples 1000000000
{t} --batch-size 0
{t} --batch-size some
{t} --batch-size 1e3
{t} --seed -1
{t} --seed 99999999999999999999999
{t} --seed x
{t} --size 0
{t} --whole --size 50
{t} --size 100000
{t} --size 60000
{t} --size -64
{t} --sigma -1
{t} --sigma nan
{t} --sigma inf
{t} --sigma 1e308
{t} --sigma 11
{t} --pag nan
{t} --pag -1
{t} --pag 1e999
{t} --cfg -1
{t} --cfg 7.5
{t} --prompt cat
{t} --eta nan
{t} --eta -1
{t} --gamma 0.1
{t} --layers
{t} --layers nothing
{t} --layers mid_block
{t} --pag 0 --layers up_blocks.1.attentions.1
{t} --pag 0 --set pag_interval=[0,0.5]
{t} --set
{t} --set eta
{t} --set =3
{t} --set nothing=3
{t} --set eta=[[[[
{t} --set eta={deep}
{t} --set eta=1 eta=2
{t} --eta 1 --set eta=2
{t} --set 'eta=&a [*a]'
{t} --set 'eta=!!int ""'
{t} --set 'pag_interval=!!timestamp x'
{t} --layers up_blocks.1.attentions.1 up_blocks.1.attentions.1
{t} --set tf32=true
{t} --set pag_interval=[0.5,0.1]
{t} --perturbation nothing
{t} --perturbation random_mask:ratio=1.5
{t} --perturbation blurred_map:kernel=4
{t} --perturbation seg:sigma=-1
{t} --pag 0 --perturbation seg
{t} --set combination=nothing
{t} --set adaptive_scale=-1
{t} --set pag_interval=[0,2]
{t} --set composite=nothing
{t} --set project=nothing
{t} --set resize=nothing
{t} --speed nothing
{t} --precision float16
{t} --precision float8
{t} --device cuda
{t} --device cuda:7
{t} --device tpu
{t} --device mps
{t} --dataset nothing
{t} --prior nothing
{t} --prior latent
{t} --prior {m}/none.pt
{t} --prior {m}/text.pt
{t} --prior {m}/folder
{t} --prior {m}/pipe
{t} --prior {m}/y.png
{t} --prior-config {m}/none.json
{t} --prior-config {m}/list.json
{t} --weights-dir {m}
{t} --download
{t} --prediction v_prediction
{t} --prediction x0
{t} --output ''
{t} --output {m}/y.png
{t} --output {m}/y.png/below
{t} --output {m}/pictures
{t} --output {m}/other
{t} --output /dev/null
{t} --output {m}/pipe
{t} --output {m}/dangling
{t} --output {long}
{t} --input ''
{t} --input {m}/none
{t} --input {m}/folder
{t} --input {m}/pipe
{t} --input /dev/zero
{t} --input {m}/text.png
{t} --input {m}/cut.png
{t} --input {m}/twins
{t} --input {m}/dot.png
{t} --input {m}/long
{t} --input {m}/pictures --output {m}/pictures
{t} --input {m}/pictures --output {m}
{t} --input {m}/pictures --measurement {m}/y.png
{t} --measurement {m}/none.png
{t} --measurement {m}/pipe
{t} --measurement {m}/y.png --size 64
{t} --measurement {m}/y.png --mask {m}/mask.png
{t} --measurement {m}/y.png --kernel {m}/zeros.npy
{t} --measurement {m}/y.png --kernel {m}/negative.npy
{t} --measurement {m}/y.png --kernel {m}/large.npy
{t} --measurement {m}/y.png --kernel {m}/none.npy
{t} --measurement {m}/levels.npy
{t} --measurement {m}/unit.npy
{t} --measurement {m}/nan.npy
{t} --measurement {m}/complex.npy
{t} --measurement {m}/objects.npy
{t} --measurement {m}/flat.npy
{t} --measurement {m}/header.npy
{t} --measurement {m}/zip.npy
{t} --measurement {m}/y.png --set resize=reference
{t} --measurement {m}/y.png --set noise_in_hole=false
{t} --mask {m}/mask.png
{t} --kernel {m}/kernel.npy
{t} --box 0 0 8 8
--task motion_deblur --solver dps --measurement {m}/y.png
--task box_inpainting --solver dps --measurement {m}/y.png
--task box_inpainting --solver dps --measurement {m}/y.png --mask {m}/y.png
--task box_inpainting --solver dps --measurement {m}/y.png --mask {m}/black.png
--task box_inpainting --solver dps --measurement {m}/y.png --mask {m}/small.png
--task box_inpainting --solver dps --measurement {m}/y.png --mask {m}/mask.png --box 0 0 8 8
--task box_inpainting --solver dps --measurement {m}/y.png --mask {m}/mask.png --kernel {m}/kernel.npy
--task box_inpainting --solver dps --size 64 --box 0 0 64 64
--task box_inpainting --solver dps --size 64 --box -1 0 8 8
--task box_inpainting --solver dps --size 64 --box 0 0 8
{t} --set composite=measurement
--task motion_deblur --solver psld --prior pixel
--task motion_deblur --solver latent_daps --prior pixel
--task motion_deblur --solver mmps --prior latent
--task motion_deblur --solver reddiff --prior latent
--task motion_deblur --solver ddnm --size 64 --steps 2 --set damping=1e30
--task motion_deblur --solver pigdm --size 64 --set weight=1e300
--task motion_deblur --solver pigdm --size 64 --set variance=1e-300
--task motion_deblur --solver diffpir --size 64 --set weight=1e300
--task motion_deblur --solver daps --size 64 --set tau=1e300
--task motion_deblur --solver daps --size 64 --set langevin_steps=1000000000
--task motion_deblur --solver daps --size 64 --set sigma_max=0.05
--task motion_deblur --solver mmps --size 64 --set tolerance=1
--task motion_deblur --solver reddiff --size 64 --set start_from=nothing
--task motion_deblur --solver ldps --size 64 --set gamma=1
--list-layers --prior nothing
--list-layers --output out
--list-layers --input {m}/pictures
--nothing
{t} extra
"""
EVALUATE = """
{e} --dataset nothing
{e} --root {m}/none
{e} --root {m}/y.png
{e} --root {m}/folder
{e} --root {m}/twins
{e} --root ''
{e} --split none.txt
{e} --split 0:100
{e} --split 5:2
{e} --split {m}/empty.txt
{e} --split {m}/wrong.txt
{e} --split {m}/pipe
{e} --split {m}/pictures
{e} --task gaussian_deblur gaussian_deblur
{e} --task {m}/a/own.yaml {m}/b/own.yaml
{e} --solver dps dps
{e} --solver auto
{e} --suite nothing
{e} --suite {m}/suite.yaml
{e} --suite {m}/twice.yaml --task
{e} --suite table8 --both
{e} --both --pag 0
{e} --output {m}/pictures
{e} --output {m}
{e} --output {m}/y.png
{e} --output {m}/other
{e} --output {m}/notes
{e} --output /dev/null
{e} --output ''
{e} --rows nothing
{e} --metric-size 3
{e} --lpips-weights {m}/none.pth
{e} --inception-weights {m}/none.pth
{e} --lpips-net squeeze
{e} --precision float16
{e} --cfg 3
{e} --sigma 1e308
{e} --tile 50
--task gaussian_deblur --solver dps
--dataset folder --root {m}/pictures
--metrics-only {m}/none
--metrics-only {m}/pictures
--metrics-only {m}/other
--metrics-only {m}/y.png
--metrics-only {m}/run --task gaussian_deblur
--metrics-only {m}/run
--compare {m}/none {m}/none
--compare {m}/pictures
--compare {m}/run {m}/run --root {m}
--compare {m}/run {m}/run --metrics-only {m}/run
"""
SEARCH = """
{s} --task nothing
{s} --solver nothing
{s} --solver auto
{s} --prior nothing
{s} --data {m}/none
{s} --data {m}/folder
{s} --data ''
{s} --output {m}/y.png
{s} --output {m}/other
{s} --output {m}/pictures
{s} --output ''
{s} --grid eta
{s} --grid eta=
{s} --grid eta=1 eta=2
{s} --grid nothing=1
{s} --grid eta=-1
{s} --grid eta=nan
{s} --grid eta=2*gamma
{s} --grid eta={deep}
{s} --pag 1
{s} --pag -1
{s} --pag 1 --layers nothing
{s} --layers up_blocks.1.attentions.1
{s} --steps 0
{s} --steps 2000
{s} --pictures 0
{s} --samples 0
{s} --size 50
{s} --seed x
{s} --precision float16
{s} --device cuda
{s} --device meta
{s} --size 60000
{s} --pag 0 0
{s} --grid eta=1,1
{s} --grid 'eta=!!bool x'
"""
ABLATE = """
{a} --data {m}/none
{a} --data {m}/folder
{a} --output {m}/pictures
{a} --output {m}/y.png
{a} --output ''
{a} --solvers nothing
{a} --solvers auto
{a} --tasks nothing
{a} --tasks gaussian_deblur motion_deblur box_inpainting
{a} --pictures 0
{a} --size 50
{a} --batch-size 0
{a} --reference-scale nan
{a} --reference-scale -1
{a} --precision float16
{a} --device cuda
{a} --device meta
{a} --size 60000
{a} --solvers dps dps
{a} --only zzz
{a} --table-only
"""
COMPARE = """
{c} --data {m}/none
{c} --data {m}/twins
{c} --data {m}/text.png
{c} --data {m}/pictures {m}/pictures
{c} --training {m}/none
{c} --training {m}/folder
{c} --output {m}/pictures
{c} --output {m}/other
{c} --output ''
{c} --tasks nothing
{c} --solvers nothing
{c} --solvers auto
{c} --many nothing
{c} --samples 0
{c} --sigmas 0
{c} --sigmas nan
{c} --size 50
{c} --tuning-pictures 0
{c} --precision float16
{c} --device cuda
{c} --device meta
{c} --size 60000
{c} --solvers dps dps
{c} --page-only
{c} --training {m}/pictures
{c} --solvers dps --many psld
{c} --sigmas 0.5 0.5
{c} --sigmas 1e-320
{c} --sigmas 1e308
{c} --lpips-weights {m}/none.pth
"""
BENCHMARK = """
--prior nothing
--task nothing
--size 0
--size x
--batch 0
--precision float16
--precision float8
--steps 0
--repeats 0
--device cuda
--device nothing
--device meta
--prior pixel pixel
--size 20000
--size 33
--batch 1000000
--threads 0
--output {m}/pictures
--output {m}/pipe
--output {m}/list.json
--output {m}/y.png/a.json
--output ''
"""
COMMANDS = {
    "solve": SOLVE,
    "evaluate": EVALUATE,
    "search": SEARCH,
    "ablate": ABLATE,
    "compare": COMPARE,
    "benchmark": BENCHMARK,
}
CASES = [(command, line) for command, lines in COMMANDS.items() for line in lines.strip().splitlines()]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind that a command may be given."""
    m = tmp_path_factory.mktemp("material")
    for folder in ("pictures", "twins", "folder", "other", "run", "a", "b", "long", "notes", "training"):
        (m / folder).mkdir()
    picture = prepare(bundled_photograph("coffee"), 256)
    for name in ("pictures/1.png", "pictures/2.png", "twins/1.png", "training/1.png", "training/2.png"):
        write_png(m / name, picture)
    PIL.Image.open(m / "twins" / "1.png").save(m / "twins" / "1.jpg")
    small = prepare(bundled_photograph("coffee"), 64)
    for name in ("y.png", f"long/{'x' * 245}.png"):
        write_png(m / name, small)
    (m / "cut.png").write_bytes((m / "y.png").read_bytes()[:2000])
    PIL.Image.new("RGB", (1, 1)).save(m / "dot.png")
    mask = np.full((64, 64), 255, np.uint8)
    mask[16:32, 16:32] = 0
    for name, array in (("mask", mask), ("black", 0 * mask), ("small", mask[:32])):
        PIL.Image.fromarray(array).save(m / f"{name}.png")
    kernel = np.full((5, 5), 0.04)
    y = np.asarray(small)
    arrays = {
        "kernel": kernel, "zeros": 0 * kernel, "negative": -kernel, "large": np.full((201, 201), 1 / 201**2),
        "levels": y * 100 + 100, "unit": y / 2 + 0.5, "nan": y * np.nan, "complex": y + 1j, "flat": y[0, 0],
        "objects": np.array([{}]),
    }  # fmt: skip
    for name, values in arrays.items():
        np.save(m / f"{name}.npy", values, allow_pickle=True)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 1000000, 1000000), }\n"
    (m / "header.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with (m / "zip.npy").open("wb") as file:
        np.savez(file, y=y)
    for name in ("text.png", "text.pt"):
        (m / name).write_text("nothing")
    for name in ("pipe", "pipe.yaml"):
        os.mkfifo(m / name)
    (m / "dangling").symlink_to(m / "nowhere")
    (m / "other" / "manifest.json").write_text('{"name": "a web page"}')
    (m / "run" / "manifest.json").write_text(
        json.dumps({"format": "pag_inverse run", "kind": "evaluate", "item": "image", "root": "..", "settings": {}})
    )
    (m / "notes" / "report.md").write_text("mine")
    (m / "list.json").write_text("[1]")
    (m / "empty.txt").write_text("\n")
    (m / "wrong.txt").write_text("3.png\n4.png\n")
    (m / "broken.yaml").write_text("operator: [")
    (m / "deep.yaml").write_text("a: " + "[" * 5000)
    task = Path(__file__).parents[2] / "configs" / "tasks" / "gaussian_deblur.yaml"
    text = task.read_text(encoding="utf-8")
    (m / "infinite.yaml").write_text(text.replace("sigma: 0.05", "sigma: .inf"))
    (m / "thin.yaml").write_text(text.replace("std: 3.0", "std: 1.0e-300"))
    (m / "recommends.yaml").write_text(text.replace("pixel: diffpir", "pixel: nothing"))
    (m / "tags.yaml").write_text(text.replace("sigma: 0.05", "sigma: !!timestamp x"))
    (m / "a" / "own.yaml").write_text(text)
    (m / "b" / "own.yaml").write_text(text)
    (m / "suite.yaml").write_text("tasks: []\nsolvers: [dps]\n")
    (m / "twice.yaml").write_text("tasks: [gaussian_deblur, gaussian_deblur]\nsolvers: [dps]\n")
    return m


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(("command", "line"), CASES, ids=[f"{command} {line}" for command, line in CASES])
def test_one_line_status_2_and_nothing_written(
    command: str,
    line: str,
    material: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    starts = {
        "t": "--task gaussian_deblur --solver dps",
        "e": "--dataset folder --root {m}/pictures --task gaussian_deblur --solver dps --size 64 --steps 1",
        "s": "--task gaussian_deblur --solver dps --data {m}/pictures --output out --size 64 --steps 2 --pictures 1",
        "a": "--data {m}/pictures --output out --size 64 --pictures 1",
        "c": "--data {m}/pictures --training {m}/training --output out --size 64",
        "m": str(material),
        "long": LONG,
        "deep": "[" * 2000,
    }
    for _ in range(2):  # the starts name the material, too
        for name, text in starts.items():
            line = line.replace(f"{{{name}}}", text)
    monkeypatch.chdir(tmp_path)
    before = listing(material)
    try:
        status = import_module(f"pag_inverse.cli.{command}").main(shlex.split(line))
    except SystemExit as stop:
        status = stop.code
    told = capsys.readouterr().err
    assert (status, told.count("\n"), told[-1:]) == (2, 1, "\n"), told
    assert told.startswith(f"{command}: ") and len(told) < 1000 and "Traceback" not in told
    assert list(tmp_path.iterdir()) == [] and listing(material) == before
