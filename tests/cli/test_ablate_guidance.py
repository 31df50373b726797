"""The sweep over guidance: a grid, made once, shared by processes, ranked and drawn; and what is refused."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pag_inverse.cli import ablate as command
from pag_inverse.data.images import BUNDLED, bundled_photograph, prepare, read_picture, write_png
from pag_inverse.experiments.sweep_grid import Setting, grid, layer_sets
from pag_inverse.generation import sample
from pag_inverse.priors import load_prior
from pag_inverse.storage.json_lines import read_lines

MID, UP = "mid_block.attentions.0", "up_blocks.1.attentions.1"
COMMON = ["--data", "data", "--output", "out", "--pictures", "2"]
TASK = [*COMMON, "--task", "super_resolution", "--solvers", "diffpir", "--size", "64", "--steps", "2"]
SWEPT = [*TASK, "--scales", "1", "2", "--layers", UP, "--perturbations", "identity", "seg"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    for name in BUNDLED:
        write_png(tmp_path / "data" / f"{name}.png", prepare(bundled_photograph(name), 256))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entries(folder: Path) -> list[dict[str, Any]]:
    return [line for path in sorted(folder.glob("rank-*.jsonl")) for line in read_lines(path)[0]]


def ranking(folder: Path) -> list[dict[str, str]]:
    with (folder / "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_task_is_swept_once_ranked_and_drawn(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(SWEPT) == 0
    folder = here / "out" / "super_resolution_guidance"
    rows, made = ranking(folder), entries(folder)
    assert len(rows) == 5 and len(made) == 10, "two perturbations and scales, and s = 0"
    psnr = [float(row["psnr"]) for row in rows]
    assert psnr == sorted(psnr, reverse=True)
    plain = next(row for row in rows if row["s"] == "0")
    for row in rows:
        if row["s"] != "0":
            assert float(row["psnr_change"]) == pytest.approx(float(row["psnr"]) - float(plain["psnr"]), abs=1e-4)
    for name in ("ranking.md", "ranking.tex", "heat_map_diffpir.pdf", "curves_diffpir.png", "scales_diffpir.png"):
        assert (folder / name).stat().st_size > 300
    assert read_picture(folder / "perturbations_diffpir.png").shape[1] > 4 * 192
    printed = capsys.readouterr().out
    assert "| 1 | diffpir |" in printed and "written to" in printed

    record = folder / "rank-000.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:-2]) + lines[-2][:40])  # as a kill leaves it
    assert command.main([*SWEPT, "--batch-size", "1"]) == 0
    assert "8 of 10 already made" in capsys.readouterr().err
    scored = {e["picture"]: e["psnr"] for e in made}
    again = entries(folder)
    assert {e["picture"] for e in again} == set(scored) and len(again) == 10
    assert [e["psnr"] for e in again] == pytest.approx([scored[e["picture"]] for e in again], abs=0.05)
    before = record.read_bytes()
    assert (folder / "images" / "diffpir_identity_at_up_blocks.1.attentions.1_s_2").is_dir()
    assert command.main([*SWEPT, "--only", "seg", "--table-only"]) == 0
    assert record.read_bytes() == before and len(ranking(folder)) == 3
    assert command.main([*SWEPT, "--seed", "1"]) == 2
    assert "other settings: seed" in capsys.readouterr().err


def test_processes_share_a_sweep(here: Path) -> None:
    script = Path(command.__file__).resolve().parents[2] / "scripts" / "ablate.py"
    if not script.is_file():
        pytest.skip("the scripts are not beside the installed package")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*launcher, *TASK, "--scales", "1"], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    folder = here / "out" / "super_resolution_guidance"
    assert len(ranking(folder)) == 2 and [row["n"] for row in ranking(folder)] == ["2", "2"]
    assert len(list(folder.glob("rank-*.jsonl"))) == 2 and len(entries(folder)) == 4


def test_generation_is_swept_with_the_samples_of_sample(here: Path) -> None:
    args = [*COMMON, "--generation", "--steps", "2", "--scales", "2", "--layers", UP, "--solvers", "ddim", "ddpm"]
    assert command.main(args) == 0
    folder = here / "out" / "generation_pixel"
    rows = ranking(folder)
    assert {(row["solver"], row["s"]) for row in rows} == {(name, s) for name in ("ddim", "ddpm") for s in ("0", "2")}
    distances = [float(row["spectrum"]) for row in rows]
    assert distances == sorted(distances) and distances[0] > 0
    assert all(float(row["spectrum_half_interval"]) >= 0 for row in rows if row["s"] == "2")
    (one,) = (e for e in entries(folder) if e["solver"] == "ddpm" and e["s"] == 2 and e["picture"].endswith("/000001"))
    known = sample("pixel", 2, s=2.0, layers=[UP], sampler="ddpm", steps=2).pictures[1]
    difference = read_picture(folder / one["files"]["picture"]["path"]).astype(int) - known.astype(int)
    assert abs(difference).max() <= 1
    assert (folder / "heat_map_ddim.png").is_file() and (folder / "curves_ddpm.pdf").is_file()
    assert json.loads((folder / "manifest.json").read_text())["settings"]["steps"] == 2


def test_sets_of_layers() -> None:
    prior = load_prior("pixel")
    there = [layer.diffusers for layer in prior.layers()]
    assert layer_sets(["each"], [], prior) == [(layer,) for layer in there]
    assert len(layer_sets(["pairs", "triples"], [], prior)) == 21 + 35
    assert layer_sets(["pairs"], ["middle_block.1", UP, there[0]], prior)[0][0] == there[0]
    assert layer_sets([f"{UP},down_blocks.3.attentions.0"], [], prior) == [("down_blocks.3.attentions.0", UP)]
    with pytest.raises(ValueError, match="given twice"):
        layer_sets(["each", UP], [], prior)
    with pytest.raises(ValueError, match="triples need at least 3 layers, there are 1"):
        layer_sets(["triples"], [UP], prior)


def test_without_pag_is_there_once() -> None:
    found = grid("x", [(UP,), (MID,)], [0.0, 2.0, 1.0], ["identity", "seg:sigma=2.0"], ["plain"])
    assert found[0] == Setting("x") and [f.s for f in found] == [0, 1, 2] * 1 + [1, 2] * 3
    assert {f.guidance for f in found} == {"", "identity", "seg:sigma=2.0"}
    with pytest.raises(ValueError, match="--perturbations: 'identity' is given twice"):
        grid("x", [(UP,)], [1.0], ["identity", "identity"], ["plain"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--scales -1", "scales"),
        ("--scales 1 --layers nowhere", "layer 'nowhere' holds no self-attention"),
        ("--scales 1 --among mid_block.attentions.0", "--among does nothing without each"),
        ("--scales 1 --layers triples --among mid_block.attentions.0", "triples need at least 3 layers, there are 1"),
        ("--scales 1 --perturbations other", "unknown perturbation 'other'"),
        ("--scales 1 --only nothing", "--only nothing: no setting has it; there are diffpir, no PAG; diffpir,"),
        ("--scales 1 --only nothing identity", "--only nothing: no setting has it"),
        ("--scales 1 --tasks gaussian_deblur motion_deblur", "one task"),
        ("--scales 1 --solvers hmc", "unknown solver 'hmc'"),
        ("--scales 1 --rank-by fid", "restorations are ranked by lpips, psnr, ssim"),
        ("--scales 1 --rank-by lpips", "needs --lpips-weights"),
        ("--scales 1 --reference-scale 2", "--reference-scale does nothing"),
        ("--scales 1 --table-only", "no sweep run in it"),
        ("--rank-by psnr", "--rank-by goes with --scales"),
        ("--generation --solvers diffpir", "must be one of ddpm, ddim"),
        ("--generation --tasks motion_deblur", "does nothing with --generation"),
        ("--generation --pictures 1", "at least 2"),
        ("--generation --rank-by psnr", "samples are ranked by fid, spectrum"),
    ],
)
def test_bad_input_is_one_line(arguments: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--data", "data", "--output", "out", *shlex.split(arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not (here / "out").exists()
