"""A run is what went into it: changed content is refused by name, added pictures are made, damaged results again."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from pag_inverse.data.images import BUNDLED, bundled_photograph, prepare, write_png
from pag_inverse.storage.lock import lock
from pag_inverse.storage.run_store import RunStore

SOLVE = ["--task", "gaussian_deblur", "--solver", "dps", "--steps", "2", "--size", "32"]
EVALUATE = [*SOLVE, "--dataset", "folder", "--root", "data", "--output", "out"]
RUN = Path("out", "gaussian_deblur_dps_pag")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    for name in list(BUNDLED)[:3]:
        write_png(tmp_path / "data" / f"{name}.png", prepare(bundled_photograph(name), 64))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, *args: str) -> int:
    found: int = import_module(f"pag_inverse.cli.{command}").main(list(args))
    return found


def made(folder: Path) -> dict[str, int]:
    """When each result of a run was written; figures are of the report, which is written each time."""
    results = (path for path in folder.rglob("*.png") if path.parent.name != "figures")
    return {str(path): path.stat().st_mtime_ns for path in results}


def refused(capsys: pytest.CaptureFixture[str], word: str, command: str, *args: str) -> None:
    before = made(Path("out"))
    capsys.readouterr()
    assert run(command, *args) == 2
    told = capsys.readouterr().err
    assert word in told and told.count("\n") == 1
    assert made(Path("out")) == before


def test_whatever_a_measurement_is_solved_with_is_named_where_it_changed(
    here: Path, capsys: pytest.CaptureFixture[str], tiny_task: Path
) -> None:
    np.save("kernel.npy", np.full((5, 5), 0.04))
    start = ["--task", str(tiny_task), "--solver", "dps", "--steps", "2", "--pag", "0", "--eta", "1", "--output", "out"]
    args = [*start, "--measurement", "data/coffee.png", "--kernel", "kernel.npy"]
    assert run("solve", *args) == 0 and run("solve", *args) == 0
    np.save("kernel.npy", np.eye(5) / 5)
    refused(capsys, "kernel_sha256", "solve", *args)
    np.save("kernel.npy", np.full((5, 5), 0.04))
    shutil.copy("data/coffee.png", "kept.png")
    shutil.copy("data/rocket.png" if Path("data/rocket.png").exists() else "data/astronaut.png", "data/coffee.png")
    refused(capsys, "other inputs: 1 changed (coffee)", "solve", *args)
    shutil.copy("kept.png", "data/coffee.png")
    assert run("solve", *args) == 0
    tiny_task.write_text(tiny_task.read_text().replace("sigma: 0.05", "sigma: 0.06").replace("project: published", ""))
    assert run("solve", *args) == 0  # nothing that counts here has changed
    assert run("solve", *args, "--overwrite") == 0


@pytest.fixture
def tiny_task(here: Path) -> Path:
    """A task file of one's own."""
    text = (Path(__file__).parents[2] / "configs" / "tasks" / "gaussian_deblur.yaml").read_text()
    (here / "task.yaml").write_text(text)
    return here / "task.yaml"


def test_a_task_file_that_changed_under_its_name_is_refused_and_another_name_is_the_same_run(
    here: Path, capsys: pytest.CaptureFixture[str], tiny_task: Path
) -> None:
    args = ["--solver", "dps", "--steps", "2", "--size", "32", "--output", "out"]
    assert run("solve", "--task", str(tiny_task), *args) == 0
    before = made(Path("out"))
    assert run("solve", "--task", "gaussian_deblur", *args) == 0 and made(Path("out")) == before
    tiny_task.write_text(tiny_task.read_text().replace("sigma: 0.05", "sigma: 0.06"))
    refused(capsys, "sigma 0.05 (now 0.06)", "solve", "--task", str(tiny_task), *args)


def test_weights_count_by_content_and_not_by_their_path(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pag_inverse.priors

    embedded = Path(pag_inverse.priors.__file__).parent / "embedded" / "pixel"
    shutil.copytree(embedded, "mine")
    args = [*SOLVE, "--dataset", "natural", "--output", "out", "--prior"]
    assert run("solve", *args, "mine") == 0
    before = made(Path("out"))
    shutil.move("mine", "moved")
    assert run("solve", *args, "moved") == 0 and made(Path("out")) == before
    from safetensors.torch import load_file, save_file

    (weights,) = Path("moved").rglob("*.safetensors")
    state = load_file(weights)
    save_file({key: value + torch.tensor(0.01).to(value) for key, value in state.items()}, weights, {"format": "pt"})
    refused(capsys, "prior_sha256", "solve", *args, "moved")


def test_added_pictures_are_evaluated_and_missing_ones_are_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("coffee", "chelsea"):
        (here / "data" / f"{name}.png").rename(here / f"{name}.png")
    assert run("evaluate", *EVALUATE) == 0
    before = made(RUN)
    assert len(before) == 1
    for name in ("coffee", "chelsea"):
        (here / f"{name}.png").rename(here / "data" / f"{name}.png")
    assert run("evaluate", *EVALUATE) == 0
    after = made(RUN)
    assert len(after) == 3 and {path: after[path] for path in before} == before
    assert "| 3" in Path("out", "report.md").read_text()
    (here / "data" / "coffee.png").rename(here / "coffee.png")
    refused(capsys, "1 of its images are not in the data set or split (coffee)", "evaluate", *EVALUATE)


@pytest.mark.parametrize("command", ["solve", "evaluate"])
def test_results_that_are_cut_or_replaced_are_made_again(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = EVALUATE if command == "evaluate" else [*SOLVE, "--input", "data", "--output", "out"]
    assert run(command, *args) == 0
    paths = [path for path in sorted(Path("out").rglob("*.*")) if path.suffix in (".png", ".npy")]
    whole = {path: path.read_bytes() for path in paths}
    paths[0].write_bytes(whole[paths[0]][:50])
    paths[-1].write_bytes(b"")
    paths[1].unlink()
    PIL.Image.new("RGB", (32, 32)).save(paths[2].with_suffix(".png"))
    capsys.readouterr()
    assert run(command, *args) == 0
    assert "it is made again" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in paths} == whole


def test_metrics_of_a_damaged_picture_are_not_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", *EVALUATE) == 0
    (picture, *_) = sorted((RUN / "restorations").glob("*.png"))
    PIL.Image.new("RGB", (32, 32)).save(picture)
    for args in (["--metrics-only", "out"], ["--compare", "out", "out"]):
        capsys.readouterr()
        assert run("evaluate", *args) == 2
        told = capsys.readouterr().err
        assert f"{picture.name} is damaged; the command that made the run makes it again" in told


def test_a_picture_that_changes_while_the_run_is_at_work_is_that_pictures_failure(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store = RunStore.open

    def opened(self: RunStore, overwrite: bool = False) -> RunStore:
        write_png(here / "data" / "coffee.png", prepare(bundled_photograph("rocket"), 64))
        return open_store(self, overwrite)

    monkeypatch.setattr(RunStore, "open", opened)
    assert run("evaluate", *EVALUATE) == 1
    assert "coffee.png has changed since the run began" in capsys.readouterr().err
    assert len(made(RUN / "restorations")) == 2


def test_a_search_of_another_task_is_another_search(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in BUNDLED:
        write_png(here / "data" / f"{name}.png", prepare(bundled_photograph(name), 256))
    start = "--solver dps --data data --grid eta=5 --steps 2 --pictures 2 --samples 1 --size 64 --output out --task"
    assert run("search", *start.split(), "gaussian_deblur") == 0
    refused(capsys, "operator 'gaussian_blur' (now 'motion_blur')", "search", *start.split(), "motion_deblur")
    write_png(here / "data" / "coffee.png", prepare(bundled_photograph("rocket"), 256))
    refused(capsys, "inputs: coffee", "search", *start.split(), "gaussian_deblur")


def test_evaluations_of_several_sizes_and_data_sets_share_a_root(here: Path) -> None:
    args = ["--dataset", "folder", "--solver", "dps", "--steps", "2", "--output", "out", "--metric-size", "32"]
    runs = (
        ["--task", "gaussian_deblur", "--size", "32", "--root", "data"],
        ["--task", "motion_deblur", "--size", "64", "--root", "data"],
        ["--task", "super_resolution", "--size", "32", "--root", "other"],
    )
    shutil.copytree("data", "other")
    write_png(Path("other/coffee.png"), prepare(bundled_photograph("rocket"), 64))
    for more in runs:
        assert run("evaluate", *args, *more) == 0
    before = made(Path("out"))
    for more in runs:
        assert run("evaluate", *args, *more) == 0
    assert made(Path("out")) == before
    assert run("evaluate", "--metrics-only", "out/motion_deblur_dps_pag") == 0
    report = Path("out", "report.md").read_text()
    assert all(task in report for task in ("gaussian_deblur", "motion_deblur", "super_resolution"))


def test_metrics_tell_what_failed_and_a_failed_picture_that_was_mended_is_made(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*EVALUATE, "--set", "eta=1e38", "step_limit=none", "--steps", "3"]
    assert run("evaluate", *args) == 1
    capsys.readouterr()
    assert run("evaluate", "--metrics-only", "out") == 1
    assert "left the finite numbers" in capsys.readouterr().err
    write_png(here / "data" / "coffee.png", prepare(bundled_photograph("rocket"), 64))
    assert run("evaluate", *args) == 1
    assert len((RUN / "rank-000.jsonl").read_text().splitlines()) == 4


def test_a_refusal_of_one_of_several_runs_opens_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RUN.mkdir(parents=True)
    held = lock(RUN / ".rank-000.lock")
    refused(capsys, "another run is at work", "evaluate", *EVALUATE, "--both")
    assert [path.name for path in Path("out").iterdir()] == [RUN.name]
    held.release()
    assert run("evaluate", *EVALUATE, "--both") == 0
