"""The sample command: the same pictures however it is run and stopped, what it leaves, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from pag_inverse.cli import sample as command
from pag_inverse.data.images import read_picture
from pag_inverse.generation import run as engine
from pag_inverse.generation.plans import DEFAULT_PRIOR
from pag_inverse.priors.checkpoints.files import load_state

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "sample.py"
CLASSES = 5


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory, adm_checkpoint: Path) -> Path:
    """A folder with a tiny unconditional prior, `pixels`, and a tiny class-conditional ADM."""
    folder = tmp_path_factory.mktemp("priors")
    torch.manual_seed(0)
    UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).save_pretrained(folder / "pixels")
    DDPMScheduler(1000, 1e-4, 0.02, "linear").save_pretrained(folder / "pixels")
    labels = torch.randn(CLASSES, 128, generator=torch.Generator().manual_seed(3))
    torch.save({**load_state(adm_checkpoint), "label_emb.weight": labels}, folder / "adm.pt")
    (folder / "adm.yaml").write_text("{image_size: 64, num_head_channels: 16, class_cond: true}")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no_weights"))
    for name in ("RANK", "WORLD_SIZE", "PAG_INVERSE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def line(priors: Path, text: str = "") -> list[str]:
    guided = "--pag 2 --layers mid_block.attentions.0 --perturbation random_mask:ratio=0.5"
    return shlex.split(f"--prior {priors}/pixels --steps 3 --size 16 {guided} {text}")


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "samples").glob("*.png"))}


def near(a: Path, b: Path) -> bool:
    """The same pictures up to the last bit of rounding."""
    names = sorted(path.name for path in a.glob("*.png"))
    pairs = [(read_picture(a / name).astype(int), read_picture(b / name).astype(int)) for name in names]
    return bool(names) and all(np.abs(x - y).max() <= 1 for x, y in pairs)


def test_what_it_leaves(priors: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(line(priors, "--count 5 --npz --output out")) == 0
    made = pictures(here / "out")
    assert list(made) == [f"{i:06d}.png" for i in range(5)] and len(set(made.values())) == 5
    with np.load("out/samples.npz") as file:  # as ADM's evaluators read it
        assert file.files == ["arr_0"] and file["arr_0"].dtype == np.uint8
        for i, name in enumerate(made):
            assert np.array_equal(file["arr_0"][i], read_picture(here / "out" / "samples" / name))
    sheet = read_picture(here / "out" / "grid.png")
    assert sheet.shape == (34, 52, 3)  # three in a row, two pixels between them
    assert np.array_equal(sheet[18:, :16], read_picture(here / "out" / "samples" / "000003.png"))
    said = capsys.readouterr()
    assert "left out: FID, IS, precision, recall: no weights-inception" in said.out and "PAG s = 2" in said.err
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    assert manifest["settings"]["perturbation"] == "random_mask:ratio=0.5" and manifest["settings"]["s"] == 2.0
    assert "| sample | " in (here / "out" / "results.md").read_text()


def test_an_adaptive_scale(priors: Path, here: Path) -> None:
    """It changes the pictures; a run without it keeps its identity."""
    for flags, output in (("", "constant"), ("--adaptive-scale 0.002", "adaptive")):
        assert command.main(line(priors, f"--count 1 {flags} --output {output}")) == 0
    assert pictures(here / "constant") != pictures(here / "adaptive")
    constant, adaptive = (
        json.loads((here / name / "manifest.json").read_text())["settings"] for name in ("constant", "adaptive")
    )
    assert adaptive["adaptive_scale"] == 0.002 and "adaptive_scale" not in constant


def test_the_help_names_the_prior_of_a_command_without_a_solver() -> None:
    help_text = " ".join(command.parser().format_help().split())
    assert f"or a path; by default {DEFAULT_PRIOR} --weights-dir" in help_text


def test_the_header_and_the_table_name_perturbation_combination_and_interval(
    priors: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(line(priors, "--count 1 --combination apg --pag-interval 0.2 0.8 --output out")) == 0
    told = "perturbation random_mask:ratio=0.5, combination apg:radius=15.0,eta=0.0, interval 0.2 to 0.8"
    header = capsys.readouterr().err
    assert f"PAG s = 2 at mid_block.attentions.0, {told}; about" in header and "sample: 1 picture of prior" in header
    (row,) = csv.DictReader((here / "out" / "results.csv").read_text().splitlines())
    assert row["guidance"] == told and told in (here / "out" / "results.md").read_text()
    assert command.main(shlex.split(f"--prior {priors}/pixels --steps 1 --size 16 --count 1 --output plain")) == 0
    assert "guidance" not in (here / "plain" / "results.csv").read_text()
    one = f"prior: {priors}/pixels, sampler: ddpm, steps: 1, size: 16, s: 2.0, layers: [mid_block.attentions.0]"
    Path("two.yaml").write_text(f"rows: {{pag: {{{one}}}, seg: {{{one}, perturbation: seg}}}}")
    assert command.main(shlex.split("--suite two.yaml --count 1 --output two")) == 0
    rows = list(csv.DictReader((here / "two" / "results.csv").read_text().splitlines()))
    assert [row["guidance"] for row in rows] == ["", "perturbation seg:sigma=inf"]


def test_a_sample_depends_on_its_number_and_the_seed_alone(
    priors: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other batches, a run that was stopped and one that is extended give the same pictures."""
    assert command.main(line(priors, "--count 5 --batch-size 5 --output whole")) == 0
    calls: list[int] = []

    def stopped(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:  # two steps to learn the time, then two batches
            raise KeyboardInterrupt
        return original(*args, **options)

    original = engine.run_sampler
    monkeypatch.setattr(engine, "run_sampler", stopped)
    assert command.main(line(priors, "--count 3 --batch-size 1 --output parts")) == 130
    monkeypatch.setattr(engine, "run_sampler", original)
    first = pictures(here / "parts")
    assert len(first) == 2
    (here / "parts" / "samples" / "000001.png").write_bytes(b"torn")
    assert command.main(line(priors, "--count 5 --batch-size 2 --output parts")) == 0
    assert near(here / "whole" / "samples", here / "parts" / "samples")
    assert pictures(here / "parts")["000000.png"] == first["000000.png"]
    assert command.main(line(priors, "--count 5 --seed 1 --output parts")) == 2


def test_a_smaller_count_tells_of_the_pictures_that_are_left(
    priors: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(line(priors, "--count 4 --output out")) == 0
    assert "earlier run" not in capsys.readouterr().err
    assert command.main(line(priors, "--count 2 --output out")) == 0
    said = capsys.readouterr()
    assert said.err.count("samples holds 2 more of an earlier run: they are not counted\n") == 1
    assert len(pictures(here / "out")) == 4 and read_picture(here / "out" / "grid.png").shape == (16, 34, 3)


def test_several_processes_share_a_run(priors: Path, here: Path) -> None:
    assert command.main(line(priors, "--count 4 --output one")) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *line(priors, "--count 4 --output two")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert near(here / "one" / "samples", here / "two" / "samples")
    assert {path.name for path in (here / "two").glob("rank-*.jsonl")} == {"rank-000.jsonl", "rank-001.jsonl"}


def labels_of(file: str) -> list[int]:
    with np.load(file) as content:
        return [int(label) for label in content["arr_1"]]


def test_classes(priors: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adm = f"--prior {priors}/adm.pt --prior-config {priors}/adm.yaml --size 32 --sampler ddim --steps 1 --npz"
    assert command.main(shlex.split(f"{adm} --count 3 --classes 4 1 --output given")) == 0
    assert labels_of("given/samples.npz") == [4, 1, 4]
    assert command.main(shlex.split(f"{adm} --count 2 --output few")) == 0
    assert command.main(shlex.split(f"{adm} --count 12 --output more")) == 0
    assert labels_of("more/samples.npz")[:2] == labels_of("few/samples.npz")
    assert len(set(labels_of("more/samples.npz"))) > 1
    assert command.main(shlex.split(f"{adm} --classes 5 --output none")) == 2
    assert "has the classes 0 to 4" in capsys.readouterr().err and not (here / "none").exists()


def test_a_suite_with_guidance_by_two_models(priors: Path, here: Path) -> None:
    """As Fig. 41: each row has a folder, and the table has all of them with the paper's figure."""
    row = f"prior: {priors}/adm.pt, sampler: ddim, steps: 2, size: 32"
    rows = f"plain: {{{row}}}, two: {{{row}, cfg: 3.0, unconditional_prior: {priors}/pixels}}, "
    rows += f"pag: {{{row}, s: 3.0, layers: [middle_block.1]}}"
    Path("mine.yaml").write_text(f"rows: {{{rows}}}\npaper: {{pag: 6.32}}\n")
    arguments = f"--suite mine.yaml --prior-config {priors}/adm.yaml --count 2 --output out"
    assert command.main(shlex.split(arguments)) == 0
    made = [pictures(here / "out" / name) for name in ("plain", "two", "pag")]
    assert all(len(found) == 2 for found in made) and len({found["000000.png"] for found in made}) == 3
    head, *lines = (here / "out" / "results.csv").read_text().splitlines()
    assert "FID of the paper" in head and [text.split(",")[0] for text in lines] == ["plain", "two", "pag"]
    assert "6.32" in lines[2] and "6.32" not in lines[0]
    assert command.main(shlex.split(f"{arguments} --rows pag")) == 0  # nothing is made anew


REFUSED = [
    ("--count 0", "count is 0"),
    ("--steps 1001", "steps is 1001"),
    ("--size 33", "sides that are multiples of 16: take 32 or 48"),
    ("--size 60", "size is 60; prior pixel samples pictures with sides that are multiples of 16: take 48 or 64"),
    ("--size 8", "take 16"),
    ("--size 60000", "GB of memory"),
    ("--prior nothing", "unknown prior 'nothing'; there are"),
    ("--prior imagenet_conditional", "no 256x256_diffusion.pt"),
    ("--prompt cat", "prior pixel takes no prompt"),
    ("--prompts empty.txt", "no prompts in it"),
    ("--prompt cat --prompts empty.txt", "give one of them"),
    ("--classes 3", "prior pixel is not class-conditional"),
    ("--cfg 3", "--cfg 3 does nothing without --prompt, --prompts or --uncond-prior"),
    ("--uncond-prior pixel", "does nothing without --cfg"),
    ("--uncond-prior latent --cfg 2", "has other states or betas"),
    ("--eta 0.5", "--eta 0.5 is of ddim"),
    ("--pag 0 --layers middle_block.1", "--layers does nothing with --pag 0"),
    ("--pag 0 --adaptive-scale 0.1", "--adaptive-scale does nothing with --pag 0"),
    ("--adaptive-scale -1", "adaptive_scale is -1"),
    ("--pag 0 --perturbation seg", "--perturbation does nothing with --pag 0"),
    ("--layers nothing", "holds no self-attention of this prior"),
    ("--perturbation nothing", "unknown perturbation 'nothing'; there are identity"),
    ("--perturbation seg:sigma=abc", "sigma is 'abc'; it must be a number, at least 0, or inf"),
    ("--perturbation seg:sigma=-1", "sigma is -1; it must be a number, at least 0, or inf"),
    ("--suite nothing", "unknown suite 'nothing'; there are embedded"),
    ("--suite embedded --pag 2", "--pag does nothing with --suite"),
    ("--suite embedded --rows nothing", "has the rows pixel, pixel_pag"),
    ("--suite table2 --rows text", "row text is of prompts; give --prompt"),
    ("--suite bad.yaml", "rows.a: sampler is 'x'"),
    ("--rows pixel", "--rows goes with --suite"),
    ("--reference empty", "empty: no images in it"),
    ("--reference empty.txt", "neither a folder of pictures nor an .npz"),
    ("--output empty.txt", "is a file"),
    ("--precision float16", "too slow on a processor"),
]


@pytest.mark.parametrize(("arguments", "told"), REFUSED, ids=[arguments for arguments, _ in REFUSED])
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments: str, told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    (here / "empty.txt").write_text("\n")
    (here / "bad.yaml").write_text("rows: {a: {prior: pixel, sampler: x, steps: 1}}")
    before = sorted(here.rglob("*"))
    assert command.main(shlex.split(arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("sample: ") and told in said
    assert sorted(here.rglob("*")) == before


def test_explained_samples(priors: Path, here: Path) -> None:
    assert command.main(line(priors, "--count 2 --explain png gif --output out")) == 0
    assert sorted(p.name for p in (here / "out" / "explained").iterdir()) == [
        f"00000{i}.{kind}" for i in range(2) for kind in ("gif", "png")
    ]
    assert command.main(line(priors, "--count 2 --output plain")) == 0
    for name in ("000000.png", "000001.png"):
        assert np.array_equal(*(read_picture(here / run / "samples" / name) for run in ("out", "plain")))
    (here / "out" / "explained" / "000001.png").unlink()
    assert command.main(line(priors, "--count 2 --explain png gif --output out")) == 0
    assert (here / "out" / "explained" / "000001.png").exists()
