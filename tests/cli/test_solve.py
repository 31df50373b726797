"""The solve command: what it writes, what it refuses, and that refusing is quick and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from operators import gaussian_kernel
from pag_inverse.cli import solve as command
from pag_inverse.data.images import bundled_photograph, prepare, write_png
from pag_inverse.solvers import SOLVERS

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "solve.py"
QUICK = ["--size", "64", "--steps", "2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAG_INVERSE_WEIGHTS", raising=False)
    return tmp_path


@pytest.fixture
def photograph(here: Path) -> Path:
    write_png(here / "chelsea.png", prepare(bundled_photograph("chelsea"), 64))
    return here / "chelsea.png"


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("task", ["box_inpainting", "super_resolution", "gaussian_deblur", "motion_deblur"])
def test_every_task_with_every_solver(task: str, solver: str, here: Path) -> None:
    assert command.main(["--task", task, "--solver", solver, "--pag", "2.0", *QUICK]) == 0
    folder = here / "results" / f"{task}_{solver}"
    content = manifest(folder)
    assert content["settings"]["s"] == 2.0 and content["settings"]["steps"] == 2
    ((name, entry),) = content["images"].items()
    for kind in ("restoration", "measurement", "comparison", "residual"):
        assert PIL.Image.open(folder / entry["files"][kind]).size[0] > 0
    y = np.load(folder / entry["files"]["measurement_array"])
    assert y.shape == ((3, 8, 8) if task == "super_resolution" else (3, 64, 64))
    assert name in entry["files"]["restoration"]
    assert 0 < entry["metrics"]["restoration"]["psnr"] < 60 and len(entry["residuals"]["0"]) == 2


@pytest.mark.parametrize(
    ("args", "solver", "steps"),
    [
        ([], "diffpir", 30),
        (["--solver", "auto", "--pag", "0"], "diffpir", 30),
        (["--prior", "latent"], "psld", 60),
        (["--dataset", "imagenet", "--pag", "0"], "dps", 1000),  # the paper's, where the tables have no other row
        (["--solver", "dps"], "dps", 100),
    ],
    ids=str,
)
def test_the_solver_is_the_task_s_unless_it_is_named(
    args: list[str], solver: str, steps: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ["--task", "gaussian_deblur", "--size", "64", *args]
    assert command.main([*whole, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert f"solver     {solver}, {steps} steps" in said and f"gaussian_deblur_{solver}" in said
    assert command.main([*whole, "--steps", "2"]) == 0
    settings = manifest(here / "results" / f"gaussian_deblur_{solver}")["settings"]
    assert settings["solver"] == solver and settings["prior"] == ("latent" if solver == "psld" else "pixel")


def test_a_measurement_without_sigma_is_restored_by_the_solver_of_the_task(photograph: Path, here: Path) -> None:
    """Solvers that divide by sigma would restore the noise: it is estimated; a JPEG has none."""
    args = ["--measurement", str(photograph), "--steps", "2"]
    assert command.main(["--task", "gaussian_deblur", *args]) == 0
    content = manifest(here / "results" / "gaussian_deblur_diffpir")
    assert content["settings"]["noise"] == "gaussian of estimated sigma" and content["settings"]["sigma"] is None
    assert 0.002 < content["images"]["chelsea"]["sigma"] < 0.05 and content["images"]["chelsea"]["sigma_is_estimated"]
    assert command.main(["--task", "jpeg", *args]) == 0
    content = manifest(here / "results" / "jpeg_diffpir")
    assert content["settings"]["noise"] == "none" and content["images"]["chelsea"]["sigma"] is None


def test_the_kind_of_a_prior_is_told_from_its_files(here: Path, adm_checkpoint: Path, tiny_sd_folder: Path) -> None:
    from pag_inverse.restoration.request import resolve_solver
    from pag_inverse.settings import SolveRequest

    for prior, solver in ((adm_checkpoint, "diffpir"), (tiny_sd_folder, "psld")):
        request = SolveRequest(task="motion_deblur", prior=str(prior), dataset="natural")
        assert resolve_solver(request).solver == solver


def test_fewer_steps_need_a_notice_where_step_sizes_follow_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for solver, warned in (("dps", True), ("pigdm", False)):
        assert command.main(["--task", "gaussian_deblur", "--solver", solver, *QUICK, "--dry-run"]) == 0
        assert ("the step sizes are meant for" in capsys.readouterr().err) is warned
    assert command.main(["--task", "gaussian_deblur", "--size", "64", "--speed", "draft", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("solver", "speed", "same"), [("daps", "draft", True), ("psld", "fast", True), ("psld", "draft", False)]
)
def test_a_speed_that_changes_nothing_says_so(
    solver: str, speed: str, same: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--task", "motion_deblur", "--solver", solver, "--size", "64", "--dry-run"]
    assert command.main([*arguments, "--speed", speed]) == 0
    assert (f"--speed {speed} changes nothing" in capsys.readouterr().err) is same
    assert command.main(arguments) == 0
    assert "changes nothing" not in capsys.readouterr().err


def test_the_uncertainty_of_several_samples_as_numbers(here: Path) -> None:
    args = ["--task", "gaussian_deblur", *QUICK, "--samples", "3", "--output", "out"]
    assert command.main(args) == 0
    entry = manifest(here / "out")["images"]["astronaut"]
    std = np.load(here / "out" / entry["files"]["std_array"])
    assert entry["files"]["std_array"] == "astronaut_std.npy" and std.shape == (3, 64, 64) and std.dtype == np.float32
    names = [entry["files"][kind] for kind in ("restoration", "sample1", "sample2")]
    samples = np.stack([np.asarray(PIL.Image.open(here / "out" / name), np.float64) for name in names])
    expected = samples.std(axis=0, ddof=1).transpose(2, 0, 1) / 127.5  # of the saved pictures, in levels of 255
    np.testing.assert_allclose(std, expected, atol=1.2 / 127.5)
    told = entry["deviation"]
    assert (told["samples"], told["ddof"], told["range"]) == (3, 1, [-1, 1])
    assert told["mean"] == pytest.approx(std.mean(), rel=1e-4)
    assert told["picture_top"] == pytest.approx(127.5 * std.mean(axis=0).max(), rel=1e-4)
    assert command.main(["--task", "gaussian_deblur", *QUICK, "--output", "one"]) == 0
    single = manifest(here / "one")["images"]["astronaut"]
    assert "std_array" not in single["files"] and "deviation" not in single


def test_tuned_step_sizes_follow_the_size_of_the_picture_and_given_ones_do_not(here: Path) -> None:
    args = ["--task", "gaussian_deblur", "--solver", "psld", "--steps", "1"]
    for name, more in (("128", ["--size", "128"]), ("64", ["--size", "64"]), ("given", ["--size", "64", "--eta", "3"])):
        assert command.main([*args, *more, "--output", name]) == 0
    large, small, given = (manifest(here / name)["settings"] for name in ("128", "64", "given"))
    assert small["eta"] == pytest.approx(large["eta"] / 2) and small["gamma"] == pytest.approx(large["gamma"] / 2)
    assert given["eta"] == 3.0 and given["gamma"] == small["gamma"]  # only what is given is meant as it is


def test_speed_and_memory_are_flags(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--task", "gaussian_deblur", "--solver", "psld", *QUICK, "--samples", "3"]
    assert command.main([*args, "--output", "plain"]) == 0
    more = ["--low-memory", "--set", "channels_last=true", "--batch-size", "auto"]
    assert command.main([*args, *more, "--output", "other"]) == 0
    assert "batch size     3" in capsys.readouterr().err
    assert manifest(here / "plain")["settings"] == manifest(here / "other")["settings"]  # the same results
    pictures = [np.asarray(PIL.Image.open(next((here / f).glob("*restoration.png"))), int) for f in ("plain", "other")]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert command.main([*args, "--precision", "bfloat16", "--output", "half"]) == 0
    assert manifest(here / "half")["settings"]["precision"] == "bfloat16"


def test_the_same_command_gives_the_same_picture_and_finished_images_are_kept(photograph: Path, here: Path) -> None:
    args = ["--task", "gaussian_deblur", "--solver", "dps", "--input", str(photograph), *QUICK]
    assert command.main([*args, "--output", "a"]) == command.main([*args, "--output", "b"]) == 0
    picture = here / "a" / "chelsea_restoration.png"
    assert picture.read_bytes() == (here / "b" / "chelsea_restoration.png").read_bytes()
    before = picture.stat().st_mtime_ns
    assert command.main([*args, "--output", "a"]) == 0
    assert picture.stat().st_mtime_ns == before


def test_a_folder_with_samples_in_batches(photograph: Path, here: Path) -> None:
    (here / "faces").mkdir()
    for name in ("a", "b", "c"):
        (here / "faces" / f"{name}.png").write_bytes(photograph.read_bytes())
    # The first of two steps multiplies what floating point rounds off: a small eta keeps that below a grey level.
    args = ["--task", "box_inpainting", "--solver", "dps", "--eta", "0.05", *QUICK, "--input", "faces"]
    args += ["--samples", "2"]
    assert command.main([*args, "--batch-size", "4", "--output", "four"]) == 0
    assert command.main([*args, "--batch-size", "1", "--output", "one"]) == 0
    for name in ("a", "b", "c"):
        pictures = [np.asarray(PIL.Image.open(here / f / f"{name}_mean.png"), dtype=int) for f in ("four", "one")]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1
        arrays = [np.load(here / f / f"{name}_measurement.npy") for f in ("four", "one")]
        assert np.array_equal(*arrays)
    first, second = (np.load(here / "four" / f"{n}_measurement.npy") for n in "ab")
    assert not np.array_equal(first, second)  # each image has a box and noise of its own


def test_a_measurement_of_ones_own(photograph: Path, here: Path) -> None:
    np.save("kernel.npy", gaussian_kernel(9, 1.5))
    args = ["--task", "motion_deblur", "--solver", "dps", "--measurement", str(photograph), "--kernel", "kernel.npy"]
    assert command.main([*args, "--steps", "2", "--output", "own"]) == 0
    entry = manifest(here / "own")["images"]["chelsea"]
    assert entry["metrics"] == {}  # there is no truth to compare with
    PIL.Image.new("L", (64, 64), 255).save("mask.png")
    args = ["--task", "box_inpainting", "--solver", "psld", "--measurement", str(photograph), "--mask", "mask.png"]
    assert command.main([*args, "--steps", "2", "--output", "masked"]) == 0
    settings = manifest(here / "masked")["settings"]
    assert settings["renoise_prediction"] and settings["sigma"] is None  # it is estimated, for each picture


def test_pag_zero_takes_the_row_without_pag(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--task", "motion_deblur", "--solver", "dps", "--dataset", "imagenet", "--prior", "pixel", "--dry-run"]
    layers = ["--layers", "mid_block.attentions.0"]
    assert command.main([*args, "--pag", "0"]) == 0
    assert "eta 0.6; no PAG" in capsys.readouterr().err
    assert command.main([*args, *layers]) == 0
    assert "eta 1; PAG s = 2 at mid_block.attentions.0" in (said := capsys.readouterr().err)
    assert len(said.splitlines()) == 6 and "about" in said  # what a person wants to know before a run
    assert not list(here.iterdir())  # a dry run writes nothing


PRESET = ["--task", "gaussian_deblur", "--solver", "psld", "--dataset", "ffhq", "--prior", "latent", "--pag", "0"]


def resolved(args: list[str]) -> dict:
    """The settings that the manifest of a run would have."""
    from pag_inverse.restoration.recipe import make_recipe
    from pag_inverse.restoration.subjects import read_subjects

    request = command.request_of(command.parser().parse_args([*PRESET, *args]))
    recipe = make_recipe(request)
    return recipe.for_example(read_subjects(request, [], recipe.size)[0]).describe()


def test_presets_and_what_is_given_in_place_of_them(here: Path) -> None:
    exact, fast, draft = (resolved(args) for args in ([], ["--speed", "fast"], ["--speed", "draft"]))
    assert (exact["steps"], exact["eta"], exact["gamma"]) == (1000, 1.0, 0.1) and exact["spacing"] == "even"
    assert exact == resolved(["--speed", "exact"])
    assert fast["steps"] == 100 and draft["steps"] <= 50 and draft["encode_interval"] > 1
    assert exact["eta"] < fast["eta"] < draft["eta"] and fast["gamma"] == pytest.approx(0.1 * fast["eta"])
    assert (fast["speed"], fast["spacing"], fast["step_scaling"]) == ("fast", "quartic", "constant")
    assert exact["renoise_prediction"] and not fast["renoise_prediction"]
    own = ["--set", "encode_interval=1", "spacing=even"]
    given = resolved(["--speed", "draft", "--steps", "40", "--eta", "3", *own])
    assert (given["steps"], given["eta"], given["encode_interval"], given["spacing"]) == (40, 3.0, 1, "even")
    assert given["gamma"] != draft["gamma"] and given["gamma"] > 0.1  # the table's, brought to this chain


def test_step_sizes_meant_for_another_number_of_steps(here: Path) -> None:
    plain, scaled = (resolved(["--steps", "100", *more]) for more in ([], ["--set", "tuned_steps=1000"]))
    assert plain["eta"] == 1.0 and 8 < scaled["eta"] < 12
    given = resolved(["--steps", "100", "--eta", "2", "--set", "tuned_steps=1000"])
    assert given["eta"] == pytest.approx(2 * scaled["eta"])


def test_the_manifest_has_what_was_used(here: Path) -> None:
    own = ["--speed", "draft", "--perturbation", "random_mask", "--set", "pag_interval=[0.2, 0.8]", "combination=apg"]
    args = ["--task", "gaussian_deblur", "--solver", "psld", *own, *QUICK]
    assert command.main(args) == command.main(args) == 0  # the second one finds its own settings
    settings = manifest(here / "results" / "gaussian_deblur_psld")["settings"]
    assert (settings["speed"], settings["steps"], settings["pag_interval"]) == ("draft", 2, [0.2, 0.8])
    assert settings["perturbation"] == "random_mask:ratio=0.25"
    assert settings["combination"] == "apg:radius=15.0,eta=0.0"


def test_list_layers_in_both_languages(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list-layers", "--prior", "pixel"]) == 0
    assert "middle_block.1" in (out := capsys.readouterr().out) and "mid_block.attentions.0" in out


BAD_ARGUMENTS = [
    (["--task", "zoom"], "motion_deblur"),
    (["--solver", "ddrm"], "there are dps, pigdm"),
    (["--dataset", "celeba"], "ffhq, imagenet, natural"),
    (["--device", "tpu"], "device is 'tpu'"),
    (["--pag", "-1"], "pag is -1.0; it must be greater than or equal to 0"),
    (["--pag", "nan"], "pag is nan; it must be a finite number"),
    (["--eta", "inf"], "eta is inf; it must be a finite number"),
    (["--sigma", "-0.1"], "sigma is -0.1; it must be greater than or equal to 0"),
    (["--gamma", "0.1"], "gamma is an unknown key; allowed: eta, spacing"),
    (["--steps", "0"], "steps is 0; it must be greater than or equal to 1"),
    (["--steps", "1001"], "steps is 1001; it must be less than or equal to 1000"),
    (["--batch-size", "0"], "batch_size is 0; it must be greater than or equal to 1"),
    (["--samples", "0"], "samples is 0; it must be greater than or equal to 1"),
    (["--seed", "-1"], "seed is -1"),
    (["--precision", "float16"], "bfloat16"),
    (["--prior", "sd15", "--solver", "psld"], "needs a row of the tables: --dataset"),
    (["--input", "nowhere.png"], "no such file"),
    (["--set", "encode=mode"], "encode is an unknown key"),
    (["--set", "encode"], "it must read KEY=VALUE"),
    (["--box", "1", "2", "3", "4"], "--box goes with a task whose operator has a position"),
    (["--mask", "mask.png"], "--measurement"),
    (["--speed", "faster"], "'exact', 'fast', 'draft'"),
    (["--set", "tuned_steps=0"], "tuned_steps is 0"),
    (["--solver", "psld", "--set", "encode_interval=0"], "encode_interval is 0"),
    (["--solver", "psld", "--set", "encode=mean"], "encode is 'mean'; it must be 'sample' or 'mode'"),
    (["--set", "step_limit=some"], "it must be 'none' or 'noise'"),
    (["--set", "pag_interval=[0.5, 0.2]"], "the lower number must come first"),
    (["--set", "pag_interval=[-0.1, 1]"], "pag_interval.0 is -0.1"),
    (["--set", "pag_interval=0.5"], "pag_interval is 0.5"),
    (["--set", "variance=1"], "variance is 1"),
]
BAD_RUNS = [
    (["--prior", "nowhere"], "ffhq, imagenet, imagenet_conditional, latent, pixel, sd15"),
    (["--prior", "ffhq", "--dataset", "ffhq"], "deepinv/diffunet"),
    (["--layers", "input_blocks.2.1"], "middle_block.1"),
    (["--whole", "--size", "64"], "--whole keeps the size of the pictures"),
    (["--size", "24"], "kernel"),
]


def refused(args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(here.rglob("*"))
    complete = ["--task", "motion_deblur", "--solver", "dps", *args]
    try:
        status = command.main(complete)
    except SystemExit as end:  # by the parser itself
        status = int(end.code or 0)
    assert status == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert sorted(here.rglob("*")) == files


@pytest.mark.parametrize(("args", "message"), BAD_ARGUMENTS + BAD_RUNS, ids=lambda v: "".join(v)[:30])
def test_bad_input_is_one_line(args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(args, message, here, capsys)


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "1x1", "missing"])
def test_files_that_are_no_picture(kind: str, photograph: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / "bad.png"
    if kind == "1x1":
        PIL.Image.new("RGB", (1, 1)).save(path)
    elif kind != "missing":
        content = {"empty": b"", "truncated": photograph.read_bytes()[:500], "text": b"not a picture"}
        path.write_bytes(content[kind])
    refused(["--input", str(path)], "bad.png", here, capsys)


def test_a_folder_with_other_settings_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--task", "motion_deblur", "--solver", "dps", *QUICK, "--output", "out"]
    assert command.main(args) == 0
    capsys.readouterr()
    before = {p: p.read_bytes() for p in here.rglob("*.*")}
    assert command.main([*args, "--seed", "1"]) == 2
    assert "seed 0 (now 1)" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in here.rglob("*.*")} == before
    assert command.main([*args, "--seed", "1", "--overwrite"]) == 0
    assert manifest(here / "out")["settings"]["seed"] == 1


def test_an_output_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("in the way")
    refused(["--output", "file", *QUICK], "file", here, capsys)
    refused(["--output", "file/below", *QUICK], "file", here, capsys)


def test_ctrl_c_keeps_what_is_finished(
    photograph: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pag_inverse.restoration import run as restore

    (here / "two").mkdir()
    for name in ("a", "b"):
        (here / "two" / f"{name}.png").write_bytes(photograph.read_bytes())
    args = ["--task", "gaussian_deblur", "--solver", "dps", "--input", "two", *QUICK, "--output", "out"]
    whole, calls = restore.write, []

    def interrupted(*rest):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*rest)

    monkeypatch.setattr(restore, "write", interrupted)
    assert command.main(args) == 130
    assert list(manifest(here / "out")["images"]) == ["a"]
    monkeypatch.setattr(restore, "write", whole)
    assert command.main(args) == 0
    assert list(manifest(here / "out")["images"]) == ["a", "b"]


def test_a_full_disk_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pag_inverse.storage import run_store

    def full(path: object, content: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run_store, "write_whole", full)
    assert command.main(["--task", "motion_deblur", "--solver", "dps", *QUICK]) == 1
    assert "No space left" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("args", [["--help"], ["--steps", "many"], ["--steps", "0"], ["--device", "tpu"]])
def test_arguments_are_judged_without_torch(args: list[str], tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['solve.py', '--task', 'motion_deblur', '--solver', 'dps', *{args!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert 'torch' not in sys.modules and 'diffusers' not in sys.modules, 'torch was imported'\n"
        "    sys.exit(end.code)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == (0 if "--help" in args else 2), done.stderr
    assert len(done.stderr.splitlines()) == (0 if "--help" in args else 1)
    if "--help" in args:
        assert done.stdout.count("python scripts/solve.py") == 5


def test_the_examples_of_the_help_run(here: Path, photograph: Path) -> None:
    """As they are written, but on small pictures and with two steps."""
    import re
    import shlex

    (here / "pictures").mkdir()
    for place in ("pictures/a.png", "pictures/b.png", "blurred.png"):
        (here / place).write_bytes(photograph.read_bytes())
    np.save("kernel.npy", gaussian_kernel(9, 1.5))
    text = command.EXAMPLES.replace("\\\n", " ")
    commands = re.findall(r"python scripts/solve.py (.*)", text)
    assert len(commands) == 5
    marked = np.asarray(PIL.Image.open(photograph)).copy()
    marked[20:24, 10:50] = (255, 0, 255)
    PIL.Image.fromarray(marked).save("photo.png")
    for arguments in commands:
        small = [] if "--measurement" in arguments else ["--size", "64"]
        assert command.main([*shlex.split(arguments), "--steps", "2", *small, "--overwrite"]) == 0


@pytest.mark.parametrize(("task", "flag"), [("motion_deblur", "--kernel"), ("box_inpainting", "--mask")])
def test_what_was_drawn_can_be_given_back(task: str, flag: str, here: Path) -> None:
    """A restoration from the saved measurement and the saved kernel or mask is a run like any other."""
    assert command.main(["--task", task, "--solver", "dps", *QUICK, "--output", "first"]) == 0
    files = manifest(here / "first")["images"]["astronaut"]["files"]
    drawn = here / "first" / files[f"{flag[2:]}_array"]
    own = ["--measurement", str(here / "first" / files["measurement_array"]), flag, str(drawn)]
    assert command.main(["--task", task, "--solver", "dps", *own, "--steps", "2", "--output", "again"]) == 0
    y = np.load(here / "first" / files["measurement_array"])
    again = np.load(here / "again" / "astronaut_measurement_measurement.npy")
    assert np.array_equal(again, y * np.load(drawn) if task == "box_inpainting" else y)


TASK_FILE = """
operator:
  name: {operator}
  settings: {{256: {settings}}}
noise: {{name: gaussian, sigma: 0.05}}
rows: {{mine: {{dps: {{without_pag: {{eta: 1.0, steps: 2}}}}}}}}
"""


@pytest.mark.parametrize(
    ("operator", "settings", "more", "message"),
    [
        ("motion_blur", "{kernel_size: 9, intensity: 0.5}", [], "needs --kernel"),
        ("box_inpainting", "{box: 8, margin: 2}", [], "needs --mask"),
        ("super_resolution", "{scale: 2}", ["--kernel", "kernel.npy"], "--kernel goes with a deblurring task"),
        ("gaussian_blur", "{kernel_size: 9, std: 1.5}", ["--mask", "mask.png"], "--mask goes with an inpainting task"),
        ("super_resolution", "{scale: 2}", [], None),
        ("gaussian_blur", "{kernel_size: 9, std: 1.5}", ["--kernel", "kernel.npy"], None),
        ("motion_blur", "{kernel_size: 9}", [], "mine.yaml: operator.settings: intensity is missing"),
        ("wavelet", "{}", [], "mine.yaml: operator.settings: unknown operator 'wavelet'"),
    ],
)
def test_a_task_file_of_ones_own_with_a_measurement(
    operator: str, settings: str, more: list[str], message: str | None, photograph: Path, here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What a measurement needs is told by the task's operator, whatever the file is called; its rows have a name."""
    np.save("kernel.npy", gaussian_kernel(9, 1.5))
    PIL.Image.new("L", (64, 64), 255).save("mask.png")
    Path("mine.yaml").write_text(TASK_FILE.format(operator=operator, settings=settings))
    args = ["--task", "mine.yaml", "--dataset", "mine", "--pag", "0", "--measurement", str(photograph), *more]
    if message is not None:
        refused(args, message, here, capsys)
    else:
        assert command.main([*args, "--solver", "dps", "--steps", "2", "--output", "out"]) == 0


def test_the_noise_of_a_task_file_is_the_runs(here: Path) -> None:
    settings = "{kernel_size: 9, std: 1.5}"
    text = TASK_FILE.format(operator="gaussian_blur", settings=settings)
    text = text.replace("gaussian, sigma: 0.05", "none, sigma: 0.0")
    Path("mine.yaml").write_text(text)
    args = ["--task", "mine.yaml", "--dataset", "mine", "--pag", "0", "--solver", "dps", *QUICK, "--output", "out"]
    assert command.main(args) == 0
    settings_of_run = manifest(here / "out")["settings"]
    assert (settings_of_run["noise"], settings_of_run["sigma"]) == ("none", 0.0)
    from operators import GaussianBlur

    truth = np.asarray(prepare(bundled_photograph("astronaut"), 64))
    expected = GaussianBlur((3, 64, 64), 9, 1.5).forward(torch.from_numpy(truth)[None])[0]
    np.testing.assert_allclose(np.load(here / "out" / "astronaut_measurement.npy"), expected.numpy(), atol=1e-6)


def test_a_piped_log_stays_short(here: Path) -> None:
    """A bar that is not on a terminal prints few lines, whatever the number of steps."""
    args = ["--task", "gaussian_deblur", "--solver", "dps", "--size", "64", "--steps", "30", "--pag", "0"]
    done = subprocess.run([sys.executable, str(SCRIPT), *args], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stderr.replace("\r", "\n").splitlines()) < 20


def test_a_reader_that_leaves_early_is_no_error(here: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-u", str(SCRIPT), "--set", "help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    assert (writer.stderr.read(), writer.wait()) == (b"", 0)


def test_an_explained_restoration(photograph: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--task", "gaussian_deblur", "--solver", "dps", "--input", str(photograph), *QUICK]
    assert command.main([*line, "--output", "plain"]) == 0
    assert command.main([*line, "--samples", "2", "--explain", "--output", "out"]) == 0
    restorations = [PIL.Image.open(here / run / "chelsea_restoration.png") for run in ("plain", "out")]
    assert np.array_equal(*map(np.asarray, restorations))
    strip = PIL.Image.open(here / "out" / "chelsea_explain.png")
    assert strip.width > 2 * 64 and strip.height > 5 * 64
    capsys.readouterr()
    assert command.main([*line, "--explain", "png", "tiff", "--output", "bad"]) == 2
    assert "unknown format 'tiff'; there are png, pdf, gif, webp" in capsys.readouterr().err
    assert not (here / "bad").exists()
    assert command.main([*line, "--explain", "--output", "plain"]) == 2  # a run without it is another run
    assert "explain" in capsys.readouterr().err
