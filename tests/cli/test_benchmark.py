"""The benchmark: its cases, its figures from known times, the published networks, and one run of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pag_inverse.cli import benchmark
from pag_inverse.benchmark.case import ARCHITECTURES
from pag_inverse.benchmark.steps import Bench
from pag_inverse.benchmark.table import curve, summary, table
from pag_inverse.guidance.prefix import SharedPrefix
from pag_inverse.training import networks as architectures
from pag_inverse.settings.tables import SolverOptions
from pag_inverse.solvers import make_solver

PARAMETERS = {"ffhq_adm": 93563910, "imagenet_adm": 552814086, "stable_diffusion_unet": 859520964,
              "stable_diffusion_vae": 83653863}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_architectures_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        network = getattr(architectures, name)()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "build", "channels", "side", "share"),
    [
        ("ffhq-architecture", architectures.ffhq_adm, 3, 256, 0.20),
        ("imagenet-architecture", architectures.imagenet_adm, 3, 256, 0.25),
        ("sd15-architecture", architectures.stable_diffusion_unet, 4, 64, 0.28),
    ],
)
def test_the_shared_prefix_saves_what_was_counted(name: str, build, channels: int, side: int, share: float) -> None:
    """The operations before the first perturbed layer, as a share of the pass; on tensors without numbers."""
    with torch.device("meta"):
        unet, z, t = build().eval().requires_grad_(False), torch.zeros(1, channels, side, side), torch.zeros(1)
        more = {"encoder_hidden_states": torch.zeros(1, 77, 768)} if channels == 4 else {}
    prefix = SharedPrefix(unet, ARCHITECTURES[name].layers, lambda network: network(z, t, **more))
    counts = []
    with torch.no_grad():
        for network in (unet, prefix.twin):
            prefix.recording = network is unet
            with FlopCounterMode(display=False) as counter:
                network(z, t, **more)
            counts.append(counter.get_total_flops())
    assert 1 - counts[1] / counts[0] >= 0.9 * share


def row(**changes: object) -> dict[str, object]:
    seconds = {"ours": [2.0, 4.0, 2.0], "forward and backward": [1.0, 2.0, 1.0], "perturbed suffix": [0.6, 1.2, 0.6],
               "whole perturbed pass": [0.8, 1.6, 0.8], "last decode": [0.0, 0.0, 0.0],
               "published": [3.0, 6.0, 3.0]}  # fmt: skip
    memory = {"ours": {"device_mb": None, "process_mb": 100.0}, "published": {"device_mb": None, "process_mb": 170.0}}
    base = {"prior": "pixel", "solver": "dps", "size": 64, "batch": 2, "precision": "float32", "device": "cpu"}
    return {**base, "seconds": seconds, "processor_seconds": seconds, "memory": memory, **changes}


def test_figures_of_known_times() -> None:
    found = summary(row(), steps=900)
    assert found["seconds a step"] == 2.0 and found["images an hour"] == pytest.approx(4.0)  # two in 1800 s
    assert found["over bound"] == pytest.approx(2.0 / 1.6)
    assert found["published over ours"] == pytest.approx(3.0)  # a batch of two in 2 s, one image in 3 s
    assert found["memory over ours"] == pytest.approx(1.7)
    assert "1.25" in table([found]) and "1.7" in table([found])
    assert "900 s" in curve([found, summary(row(batch=1), steps=900)])


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    assert benchmark.main(["--prior", "pixel", "--size", "32", "--repeats", "1", "--output", str(output)]) == 0
    content = json.loads(output.read_text())
    (case,) = content["cases"]
    assert case["memory"]["ours"]["process_mb"] > 0 and case["seconds"]["published"][0] > 0
    assert "over bound" in capsys.readouterr().out


def test_the_reference_is_the_same_step() -> None:
    """Written the published way, with the same random numbers, a step ends where ours does."""
    for prior, task in (("pixel", "gaussian_deblur"), ("latent", "gaussian_deblur")):
        (case,) = benchmark.cases(benchmark.parser().parse_args(["--prior", prior, "--task", task, "--size", "64"]))
        ends = []
        for way in ("ours", "published"):
            bench = Bench(case)
            # Options as published, which the embedded priors' rows are not. Step sizes are powers of two: others round
            # differently inside the loss and outside, which the network's backward pass amplifies.
            gamma = None if bench.row.gamma is None else 0.25
            bench.row = replace(bench.row, eta=2.0, gamma=gamma, options=SolverOptions())
            bench.solver = make_solver(case.solver, bench.row)
            ends.append(getattr(bench, way)())
        torch.testing.assert_close(ends[1], ends[0], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("args", "message"), [(["--repeats", "0"], "at least 1"), (["--prior", "other"], "ffhq-architecture"),
                          (["--size", "0"], "at least 1"), (["--precision", "half"], "bfloat16")],
)  # fmt: skip
def test_bad_input_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = benchmark.main(args)
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err.strip()
    assert status == 2 and message in error and len(error.splitlines()) == 1
