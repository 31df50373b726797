"""The evaluate command: the same result however it is run and stopped, its report, and what it refuses."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from pag_inverse.cli import evaluate as command
from pag_inverse.data.images import bundled_photograph, prepare, write_png
from pag_inverse.storage.json_lines import read_lines

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "evaluate.py"
TASK = ["--dataset", "folder", "--root", "data", "--task", "gaussian_deblur", "--solver", "dps"]
QUICK = [*TASK, "--size", "64", "--steps", "2"]
RUN = "gaussian_deblur_dps_pag"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no_weights"))
    for name in ("RANK", "WORLD_SIZE", "PAG_INVERSE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "data").mkdir()
    whole = prepare(bundled_photograph("coffee"), 128)
    for i in range(5):
        write_png(tmp_path / "data" / f"{i}.png", whole[:, 12 * i : 12 * i + 64, 10 * i : 10 * i + 64])
    return tmp_path


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node")
_PLAIN = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", *_PLAIN, "--num_processes")


def started(*arguments: str, processes: int = 1, launcher: tuple[str, ...] = TORCHRUN) -> subprocess.Popen[str]:
    several = ["-m", *launcher, str(processes)] if processes > 1 else []
    line = [sys.executable, *several, str(SCRIPT), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="module")
def tiny_latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unconditional latent model in a diffusers folder."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel

    folder = tmp_path_factory.mktemp("tiny_latent")
    torch.manual_seed(0)
    UNet2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    ).save_pretrained(folder / "vae")
    DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear").save_pretrained(folder / "scheduler")
    return folder


def pictures(folder: str, run: str = RUN) -> dict[str, np.ndarray]:
    found = sorted(Path(folder, run, "restorations").glob("*.png"))
    return {path.name: np.asarray(PIL.Image.open(path)).astype(int) for path in found}


def measurements(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("measurements/*/*/*.npy")}


def lines(folder: str, run: str = RUN) -> list[dict]:
    return [entry for path in sorted(Path(folder, run).glob("rank-*.jsonl")) for entry in read_lines(path)[0]]


def same(a: str, b: str) -> None:
    first, second = pictures(a), pictures(b)
    assert first.keys() == second.keys() and len(first) == 5
    # A rounding can push an x0 of the first step, from pure noise, across its clamp, and two steps do not forget it;
    # other draws differ by tens of grey levels.
    worst = max(np.abs(first[name] - second[name]).mean() for name in first)
    assert worst < 0.5, worst
    assert measurements(a) == measurements(b) and len(measurements(a)) == 5


def test_processes_and_batches_do_not_change_a_result(here: Path) -> None:
    several = started(*QUICK, "--output", "three", "--batch-size", "2", processes=3)
    assert command.main([*QUICK, "--output", "one"]) == 0
    assert command.main([*QUICK, "--output", "four", "--batch-size", "4"]) == 0
    assert several.wait(timeout=300) == 0, several.communicate()[1]
    same("one", "three")
    same("one", "four")
    assert {path.name for path in Path("three", RUN).glob("rank-*")} == {f"rank-00{r}.jsonl" for r in range(3)}
    before = {path: path.stat().st_mtime_ns for path in Path("three", RUN).glob("restorations/*")}
    assert command.main([*QUICK, "--output", "three"]) == 0  # on another number of processes
    assert before == {path: path.stat().st_mtime_ns for path in Path("three", RUN).glob("restorations/*")}
    assert len(lines("three")) == 5


def test_launched_by_accelerate_in_a_drawn_order(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    run = started(*QUICK, "--output", "two", "--shuffle", processes=2, launcher=ACCELERATE)
    assert command.main([*QUICK, "--output", "one"]) == 0
    told = run.communicate(timeout=300)[1]
    if "--multi_gpu" in told or "ackend" in told:
        pytest.skip(f"accelerate does not launch on this machine: {told.splitlines()[-1]}")
    assert run.returncode == 0, told
    same("one", "two")
    names = {path.name for path in Path("two", RUN).glob("rank-*")}
    assert names == {"rank-000.jsonl", "rank-001.jsonl"}
    capsys.readouterr()
    assert command.main([*QUICK, "--output", "shuffled", "--shuffle", "--batch-size", "2", "--log-json"]) == 0
    order = [json.loads(line)["image"] for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert sorted(order) == list("01234") != order
    same("one", "shuffled")


def test_psld_with_a_prior_of_ones_own(here: Path, tiny_latent: Path) -> None:
    args = ["--dataset", "folder", "--root", "data", "--task", "gaussian_deblur", "--solver", "psld", "--both"]
    args += ["--prior", str(tiny_latent), "--rows", "ffhq", "--size", "64", "--steps", "2"]
    args += ["--layers", "middle_block.1"]
    assert command.main([*args, "--output", "one"]) == 0
    assert command.main([*args, "--output", "three", "--batch-size", "3", "--shuffle"]) == 0
    for run in ("gaussian_deblur_psld", "gaussian_deblur_psld_pag"):
        first, second = pictures("one", run), pictures("three", run)
        assert len(first) == 5 and all(np.abs(first[name] - second[name]).max() <= 1 for name in first)
    assert json.loads(Path("one", run, "manifest.json").read_text())["settings"]["eta"] == 0.1  # Table 5


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_that_cannot_grow(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and what is finished stays."""
    assert command.main([*QUICK, "--output", "whole"]) == 0
    shutil.copytree("whole", "out")
    for path in Path("out").rglob("3*"):
        path.unlink()
    capsys.readouterr()
    with largest_file(30_000):  # a measurement has 49,280 bytes
        assert command.main([*QUICK, "--output", "out"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert re.search(r"evaluate: .*3\.npy.*; what is finished is kept, and the same command goes on", error[-1])
    assert set(pictures("out")) == {"0.png", "1.png", "2.png", "4.png"} and not list(Path("out").rglob("*.tmp"))
    assert command.main([*QUICK, "--output", "out"]) == 0
    assert len(lines("out")) == 6  # only the one
    same("out", "whole")


def test_a_disk_that_fills(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = here / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        assert command.main([*QUICK, "--output", "disk/out"]) == 1
        assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
        finished = [entry["image"] for entry in lines("disk/out")]
        assert finished == ["0", "1", "2", "3"]
        shutil.copytree("disk/out", "out")  # to where there is room
    finally:
        subprocess.run(["umount", disk], check=True)
    assert command.main([*QUICK, "--output", "out"]) == 0
    assert [entry["image"] for entry in lines("out")] == [*finished, "4"]


def test_killed_and_resumed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*QUICK, "--output", "whole"]) == 0
    run = started(*QUICK, "--steps", "4", "--output", "out", "--log-json")
    assert run.stderr is not None
    told = next(json.loads(line) for line in run.stderr if line.startswith("{"))
    assert told["run"] == RUN and told["total"] == 5 and told["images_per_hour"] > 0
    with pytest.raises(ValueError, match="another run is at work"):
        command.act(command.parser().parse_args([*QUICK, "--steps", "4", "--output", "out"]))
    run.send_signal(signal.SIGKILL)
    run.communicate()
    done = {entry["image"] for entry in lines("out")}
    assert done and len(done) < 5
    assert command.main([*QUICK, "--steps", "4", "--output", "out"]) == 0
    assert len(lines("out")) == 5  # each was computed once
    assert command.main([*QUICK, "--output", "out"]) == 2
    assert "steps 4 (now 2)" in capsys.readouterr().err
    assert command.main([*QUICK, "--output", "out", "--overwrite"]) == 0
    same("out", "whole")


def test_what_a_crash_left_is_done_again_and_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*QUICK, "--output", "whole"]) == 0
    shutil.copytree("whole", "out")
    path = Path("out", RUN, "rank-000.jsonl")
    path.write_bytes(path.read_bytes()[:-30])
    picture = Path("out", RUN, "restorations", "1.png")
    picture.write_bytes(picture.read_bytes()[:100])
    capsys.readouterr()
    assert command.main([*QUICK, "--output", "out"]) == 0
    error = capsys.readouterr().err
    assert "1 damaged lines" in error and "1.png is damaged; it is made again" in error and "3 of 5" in error
    same("out", "whole")


def test_an_unreadable_image_in_the_middle(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path("data/2.png").read_bytes()
    Path("data/2.png").write_bytes(whole[:200])
    assert command.main([*QUICK, "--output", "out", "--batch-size", "2"]) == 1
    assert re.search(rf"{RUN}: 2: .*2\.png: cannot be read", capsys.readouterr().err)
    assert len(pictures("out")) == 4 and "2 failed" in Path("out/report.md").read_text()
    Path("data/2.png").write_bytes(whole)
    assert command.main([*QUICK, "--output", "out"]) == 0
    assert len(pictures("out")) == 5 and len(lines("out")) == 6


def measurement_psnr(run: str, name: str) -> float:
    """The PSNR of a saved measurement, by scikit-image."""
    files = json.loads(Path(run, "manifest.json").read_text())["images"][name]["files"]
    y = np.load(Path("out", files["measurement"]))
    shown = np.rint(np.clip((y.astype(np.float64) + 1) * 127.5, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    truth = np.asarray(PIL.Image.open(Path("out", files["truth"])))
    return float(peak_signal_noise_ratio(truth, shown, data_range=255))


def test_the_report(here: Path) -> None:
    args = [*QUICK, "--both", "--samples", "2", "--batch-size", "3", "--split", "0:3", "--output", "out"]
    assert command.main(args) == 0
    rows = list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))
    plain = RUN.removesuffix("_pag")
    assert {row["run"] for row in rows} == {RUN, plain, "measurement of gaussian_deblur"}
    found = {row["metric"]: row for row in rows if row["run"] == RUN}
    assert found["psnr"]["n"] == "3" and float(found["psnr"]["low"]) < float(found["psnr"]["mean"])
    assert float(found["psnr"]["best"]) > float(found["psnr"]["worst"]) and not found["psnr"]["paper"]
    assert found["lpips"]["mean"] == "" and "--lpips-weights" in found["lpips"]["reason"]
    assert "torch-fidelity" in found["fid"]["reason"] or "--inception-weights" in found["fid"]["reason"]
    page = Path("out/report.html").read_text()
    assert page.count("data:image/jpeg") == 3 * 4 and "https://" not in page
    report = Path("out/report.md").read_text()
    assert "| LPIPS |" not in report and "LPIPS n/a: " in report
    measured = [measurement_psnr(f"out/{RUN}", str(i)) for i in range(3)]
    assert float(rows[0]["mean"]) == pytest.approx(np.mean(measured)) and rows[0]["metric"] == "psnr"
    change = re.search(rf"\| {plain} \| 3 \| ([+-][\d.]+) \(", report.partition("## What PAG changes")[2])
    means = [float(r["mean"]) for name in (RUN, plain) for r in rows if (r["run"], r["metric"]) == (name, "psnr")]
    assert change is not None and float(change[1]) == pytest.approx(means[0] - means[1], abs=0.006)
    assert Path("out/report.tex").read_text().count(r"\toprule") == 2
    figures = {f"{plain}_{kind}.{suffix}" for kind in ("pictures", "residual") for suffix in ("png", "pdf")}
    assert {path.name for path in Path("out/figures").iterdir()} == figures
    same, own = re.split(r"\n\n", report.partition("## Settings")[2].strip())
    assert "| seed | 0 |" in same and "| s |" not in same  # said once what both have, a line each for what differs
    assert f"\n| {RUN} |" in own and "| s |" in own and "seed" not in own

    before = Path("out/results.csv").read_text()
    assert command.main(["--metrics-only", "out"]) == 0
    assert Path("out/results.csv").read_text() == before


def test_comparing_two_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*QUICK, "--split", "0:3"]
    assert command.main([*args, "--output", "a"]) == command.main([*args, "--output", "b", "--steps", "3"]) == 0
    capsys.readouterr()
    assert command.main(["--compare", "a", "b"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(RUN) and re.search(r"psnr +[+-]\d.*95 % interval .* n = 3", out)
    assert command.main(["--compare", "a", "data"]) == 2
    assert "no evaluate run" in capsys.readouterr().err


def test_images_whose_ids_look_like_samples(here: Path) -> None:
    Path("data/1.png").rename("data/0_sample1.png")
    args = [*QUICK, "--samples", "2", "--output", "out"]
    assert command.main(args) == 0
    before = lines("out")
    assert command.main(args) == 0 and lines("out") == before  # no image wrote over another's files
    samples = {
        path.relative_to(Path("out", RUN, "restorations")).as_posix() for path in Path("out", RUN).rglob("0*.png")
    }
    assert {"0.png", "0_sample1.png", "sample1/0.png", "sample1/0_sample1.png"} <= samples


def test_an_image_that_changed_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*QUICK, "--output", "out"]) == 0
    Path("data/3.png").write_bytes(Path("data/4.png").read_bytes())
    capsys.readouterr()
    assert command.main([*QUICK, "--output", "out"]) == 2
    assert "other inputs: 1 changed (3)" in capsys.readouterr().err
    assert command.main([*QUICK, "--output", "out", "--overwrite"]) == 0
    images = json.loads(Path("out", RUN, "manifest.json").read_text())["images"]
    assert len({Path("out", images[i]["files"]["truth"]).read_bytes() for i in "34"}) == 1


def test_a_diverged_image_counts_as_failed_each_time(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*QUICK, "--split", "0:2", "--set", "eta=1e38", "step_limit=none", "--steps", "3", "--output", "out"]
    for _ in range(2):
        assert command.main(args) == 1
        error = capsys.readouterr().err
        assert f"{RUN}: 0: left the finite numbers (sample 0 at step" in error and f"{RUN}: 1: left" in error
    assert len(lines("out")) == 2  # it was not tried again
    assert "left the finite numbers" in Path("out/report.md").read_text()


def test_the_metrics_of_a_larger_restoration_are_at_their_own_size(here: Path) -> None:
    assert command.main([*QUICK, "--metric-size", "32", "--split", "0:2", "--output", "out"]) == 0
    (truth,) = {PIL.Image.open(path).size for path in Path("out/truths").glob("*/*.png")}
    assert truth == (32, 32) and next(iter(pictures("out").values())).shape == (64, 64, 3)


BAD = [
    ([], "--dataset"),
    (["--dataset", "folder", "--root", "nowhere", "--task", "box_inpainting", "--solver", "dps"], "no such folder"),
    (["--dataset", "folder", "--root", "empty", "--task", "box_inpainting", "--solver", "dps"], "no images"),
    (["--dataset", "ffhq", "--root", "data", "--suite", "table8", "--split", "first-1k"], "1000 images are missing"),
    (["--dataset", "folder", "--root", "data", "--suite", "table9"], "imagenet, table4, table8"),
    (["--dataset", "folder", "--root", "data"], "--suite, or --task"),
    ([*TASK, "--split", "3:9"], "there are 5 images"),
    ([*TASK, "--batch-size", "0"], "batch_size is 0"),
    ([*TASK, "--prior", "nowhere.pt"], "unknown prior"),
    ([*TASK, "--lpips-weights", "nowhere.pth"], "no such file"),
    ([*TASK, "--metrics-only", "a", "--compare", "a", "b"], "one of them"),
    (["--metrics-only", "data"], "no evaluate run"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    before = sorted(here.rglob("*"))
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert sorted(here.rglob("*")) == before


def test_arguments_are_checked_before_anything_heavy(here: Path) -> None:
    code = "import sys; from pag_inverse.cli.evaluate import main; main(sys.argv[1:]); print(*sys.modules)"
    line = [sys.executable, "-c", code, *TASK, "--split", "3:9"]
    loaded = subprocess.run(line, capture_output=True, text=True).stdout.split()
    assert loaded and not {"diffusers", "transformers", "torchvision", "matplotlib", "lpips"} & set(loaded)


def test_help_is_quick(here: Path) -> None:
    code = (
        "import sys\nfrom pag_inverse.cli.evaluate import main\n"
        "try:\n    main(['--help'])\nfinally:\n    print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert told.endswith("False\n") and "scripts/evaluate.py" in told


OWN = [("['--seed', rank]", "seed 0 (now 1)"), ("['--shuffle'] * int(rank)", "shuffle False (now True)")]


@pytest.mark.parametrize("own, message", OWN)
def test_processes_with_different_settings_are_refused(here: Path, own: str, message: str) -> None:
    code = (
        "import os, sys; from pag_inverse.cli.evaluate import main\n"
        f"rank = os.environ['RANK']; sys.exit(main([*sys.argv[1:], *{own}]))"
    )
    Path("run.py").write_text(code)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "run.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *QUICK, "--output", "out"], capture_output=True, text=True, env=environment)
    assert done.returncode != 0 and f"different settings: {message}" in done.stderr
    assert not Path("out").exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_in_a_browser(here: Path) -> None:
    assert command.main([*QUICK, "--both", "--split", "0:2", "--output", "out"]) == 0
    page = Path("out/report.html").read_text()
    probe = """<script>
    const cells = () => [...document.querySelectorAll("table.sortable tbody tr")].map(row => row.cells[0].textContent);
    const first = cells(), head = document.querySelector("table.sortable th");
    head.click(); const up = cells(); head.click(); const down = cells();
    window.addEventListener("load", () => document.body.append("PROBE " + JSON.stringify({
      loaded: [...document.images].every(image => image.complete && image.naturalWidth > 0),
      images: document.images.length,
      up, down, narrow: document.documentElement.scrollWidth <= window.innerWidth })));
    </script>"""
    Path("probe.html").write_text(page.replace("</body>", f"{probe}</body>"))
    line = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--dump-dom"]
    profile = f"--user-data-dir={here / 'profile'}"
    done = subprocess.run([*line, profile, f"file://{here}/probe.html"], capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout.rpartition("PROBE ")[2].partition("</body>")[0])
    assert found["loaded"] and found["images"] == 3 * 4 + 1 and found["narrow"]
    assert found["up"] == sorted(found["up"]) and found["down"] == found["up"][::-1] and len(found["up"]) == 3
