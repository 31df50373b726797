"""The ablation: resumable, paired, a table of what is there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pag_inverse.cli import ablate as command
from pag_inverse.data.images import BUNDLED, bundled_photograph, prepare, write_png
from pag_inverse.experiments import ablation
from pag_inverse.storage.json_lines import read_lines

ARGS = ["--data", "data", "--output", "out", "--size", "64", "--pictures", "2", "--precision", "float32"]
PSLD = ["--solvers", "psld", "--tasks", "motion_deblur"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    for name in BUNDLED:
        write_png(tmp_path / "data" / f"{name}.png", prepare(bundled_photograph(name), 256))
    whole = ablation.make_variants

    def short(*arguments: Any) -> list[ablation.Variant]:
        return [replace(v, method=replace(v.method, steps=max(2, v.method.steps // 30))) for v in whole(*arguments)]

    monkeypatch.setattr(ablation, "make_variants", short)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_options_are_paired_and_nothing_is_measured_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*ARGS, *PSLD, "--only", "row as it is", "encode_interval=1", "pag_interval=[0, 0.5]"]
    assert command.main(args) == 0
    table = capsys.readouterr().out
    record = here / "out" / "motion_deblur_psld" / "rank-000.jsonl"
    entries, _ = read_lines(record)
    assert len(entries) == 6 and {e["picture"] for e in entries} == {e["picture"] for e in entries[:2]}
    row = next(line for line in table.splitlines() if line.startswith("| --set encode_interval=1"))
    assert "| the row as it is | 2 |" in row and "±" in row
    passes = {e["variant"]: e["passes"] for e in entries}
    # Two steps: U-Net and decoder forward and backward, the perturbed pass, the last decoding; the row encodes once.
    assert passes["the row as it is"] == 13 and passes["--set encode_interval=1"] == 15
    assert passes["--set pag_interval=[0, 0.5]"] == 12
    assert "encode_interval=2" not in table  # the row's own

    record.write_bytes(b"".join(record.read_bytes().splitlines(keepends=True)[:-1]))
    assert command.main(args) == 0
    again, _ = read_lines(record)
    assert [e["psnr"] for e in again] == pytest.approx([e["psnr"] for e in entries], abs=0.05)
    assert command.main([*ARGS, *PSLD, "--table-only"]) == 0
    assert len(read_lines(record)[0]) == 6


def test_only_keeps_what_a_setting_is_held_against(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*ARGS, "--solvers", "diffpir", "--only", "draft"]
    assert command.main(args) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    found = {row[0]: row for row in rows}
    assert "1000 steps" in found and "±" in found["--speed draft"][-1]
    measured = {e["variant"] for e in read_lines(here / "out" / "gaussian_deblur_diffpir" / "rank-000.jsonl")[0]}
    assert measured == {"1000 steps", "--speed draft"}


def test_what_is_measured_of_each_solver(here: Path) -> None:
    from pag_inverse.priors import load_prior
    from pag_inverse.settings import load_task

    for solver, prior, encodes in (("dps", "pixel", False), ("psld", "latent", True)):
        row = load_task("gaussian_deblur", "natural", solver, image_size=256, pag=True).hyperparameters
        assert row is not None
        names = [variant.name for variant in ablation.make_variants(solver, row, load_prior(prior), 64)]
        assert {"1000 steps", "--speed fast", "--speed draft", "the row as it is"} < set(names)
        assert "--set step_limit=none" in names and "--set step_limit=noise" not in names  # the row's own
        assert any("encode_interval" in name for name in names) == encodes
        assert len(set(names)) == len(names)
        further = ablation.make_variants(solver, row, load_prior(prior), 64, 1.0, ["seg", "identity"])
        assert [v.name for v in further if v.name not in names] == ["--perturbation seg"]  # the row has the identity


def test_bad_input_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*ARGS, "--pictures", "0"]) == 2
    assert command.main(["--data", "nowhere", "--output", "out"]) == 2
    assert command.main([*ARGS, *PSLD, "--tasks", "motion_deblur", "gaussian_deblur"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3 and not (here / "out").exists()


def test_a_word_that_no_setting_has_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*ARGS, "--solvers", "diffpir", "--only", "nothing", "row"]) == 2
    error = capsys.readouterr().err
    assert "--only nothing: no setting has it; there are 1000 steps; --speed fast" in error
    assert len(error.splitlines()) == 1 and not (here / "out").exists()


def test_one_picture_has_no_interval(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pag = "pag_interval=[0, 0.5]"
    assert command.main([*ARGS, "--pictures", "1", "--solvers", "diffpir", "--only", pag]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if pag in line).strip("| ").split(" | ")
    assert row[2] == "1" and "nan" not in " ".join(row) and "±" not in " ".join(row)
    assert float(row[-1]) == pytest.approx(0, abs=1) and row[-2][0] in "+-"


@pytest.mark.parametrize("sweep", [[], ["--scales", "1"]])
def test_an_output_with_other_files_is_refused(
    sweep: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pag = ["--solvers", "diffpir", *(sweep or ["--only", "row as it is"])]
    args = ["--data", "data", "--size", "64", "--pictures", "1", "--precision", "float32", *pag]
    shutil.copytree(here / "data", here / "photographs")
    for output, told in (("photographs", "holds no runs"), ("data/out", "lies in the folder of the input data")):
        assert command.main([*args, "--output", output]) == 2
        error = capsys.readouterr().err
        assert told in error and len(error.splitlines()) == 1
    assert not (here / "data" / "out").exists() and not any(path.is_dir() for path in (here / "photographs").iterdir())


def test_an_earlier_ablation_goes_on_beside_other_files(here: Path) -> None:
    args = [*ARGS, "--pictures", "1", "--solvers", "diffpir", "--only", "row as it is"]
    assert command.main(args) == 0
    (here / "out" / "notes.txt").write_text("mine")
    assert command.main(args) == 0
    assert command.main([*args, "--task", "motion_deblur"]) == 0
    (here / "out").rename(here / "data" / "out")  # made before this was refused
    assert command.main([*args, "--output", "data/out"]) == 0
