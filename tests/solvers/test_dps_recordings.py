"""DPS step by step against recorded runs of the published program, with and without PAG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, Operator, SuperResolution
from pag_inverse import DPS, NoGuidance, PerturbedAttentionGuidance, PixelPrior, load_prior, solve
from pag_inverse.runtime.streams import recorded_draw

DATA = Path(__file__).parents[1] / "data"
LAYER = ["input_blocks.5.1"]
NOISE = GaussianNoise(0.05)
GUIDANCES = {"nopag": NoGuidance(), "pag": PerturbedAttentionGuidance(1.0, LAYER)}


def operator_of(task: str) -> Operator:
    return GaussianBlur((3, 64, 64)) if task == "gauss" else SuperResolution((3, 64, 64), 8)


def l2(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("kind", ["nopag", "pag"])
def test_each_step_from_the_recorded_state(kind: str, adm: PixelPrior, recordings) -> None:
    draws = recordings.load("dps_trajectory/trained_gauss_20_draws.npz", DATA)
    run = recordings.load(f"dps_trajectory/trained_gauss_20_{kind}.npz", DATA)
    steps = run["steps"].tolist()
    states = dict(zip(steps, run["x_t"], strict=True)) | {20: run["x_final"]}
    grads = dict(zip(run["grad_steps"].tolist(), run["grad"], strict=True))
    clamped = np.unpackbits(run["clamped"].numpy())[: 20 * 3 * 64 * 64].reshape(20, 3, 64, 64).astype(bool)
    solver = DPS(float(draws["scale"]))
    schedule = solver.schedule(adm, 20)
    compared = 0
    for i in [i for i in steps if i + 1 in states]:
        k = 19 - i
        assert schedule.timesteps[k] == draws["timesteps"][i]
        draw = recorded_draw([draws["z"][i : i + 1]])
        output = solver.step(
            states[i][None], k, schedule, draws["y"], NOISE, operator_of("gauss"), adm, GUIDANCES[kind], draw
        )
        if (clamped[i] != (output.x0[0].abs() >= 1).numpy()).any():
            continue  # a clamp that flips in the last bit changes the whole gradient
        compared += 1
        assert (output.z[0] - states[i + 1]).abs().max() < 1e-4
        if i in grads:
            mean = solver_mean(solver, adm, kind, states[i][None], k, schedule, draw_of=draws["z"][i : i + 1])
            assert l2((mean - output.z)[0] / solver.eta, grads[i]) < 1e-4
            assert float(output.residual) == pytest.approx(float(run["norm"][i]), rel=1e-4)
    assert compared >= 5


def solver_mean(solver: DPS, prior: PixelPrior, kind: str, x_t: Tensor, k: int, schedule, draw_of: Tensor) -> Tensor:
    """The same step without the data term: what the gradient is subtracted from."""
    free = DPS(0.0)
    y = torch.zeros(1, 3, 64, 64)
    draw = recorded_draw([draw_of])
    return free.step(x_t, k, schedule, y, NOISE, operator_of("gauss"), prior, GUIDANCES[kind], draw).z


@pytest.mark.parametrize("kind", ["nopag", "pag"])
def test_twenty_steps_free_running(kind: str, adm: PixelPrior, recordings) -> None:
    draws = recordings.load("dps_trajectory/trained_gauss_20_draws.npz", DATA)
    run = recordings.load(f"dps_trajectory/trained_gauss_20_{kind}.npz", DATA)
    states: list[Tensor] = []
    draw = recorded_draw([draws["x_T"], *draws["z"][:-1].unsqueeze(1)])
    solve(
        draws["y"],
        operator_of("gauss"),
        adm,
        DPS(float(draws["scale"])),
        GUIDANCES[kind],
        noise=NOISE,
        steps=20,
        seeds=[0],
        draw=draw,
        callback=lambda done, total, output: states.append(output.z[0]),
    )
    recorded = dict(zip(run["steps"].tolist(), run["x_t"], strict=True)) | {20: run["x_final"]}
    assert max(float((states[i - 1] - x).abs().max()) for i, x in recorded.items() if i > 0) < 1e-3


@pytest.mark.parametrize("kind", ["nopag", "pag"])
@pytest.mark.parametrize(
    "name", ["trained_sr8_20", "random_gauss_20", "trained_gauss_first5of1000", "trained_sr8_first5of1000"]
)
def test_further_runs_step_by_step(name: str, kind: str, recordings) -> None:
    draws = recordings.load(f"dps_trajectory/{name}_draws.npz")
    run = recordings.load(f"dps_trajectory/{name}_{kind}.npz")
    model = {"trained": "ffhq_like_trained", "random": "ffhq_like"}[name.split("_")[0]]
    prior = load_prior(
        recordings.path(f"adm_unet/{model}.pt"), config=recordings.path("adm_unet/ffhq_like_config.json")
    )
    operator, solver = operator_of(name.split("_")[1]), DPS(float(draws["scale"]))
    schedule = solver.schedule(prior, len(draws["timestep_map"]))
    assert schedule.timesteps.tolist() == draws["timestep_map"].tolist()
    assert np.abs(schedule.betas - draws["betas_respaced"].numpy()).max() < 1e-12
    states = [*run["x_t"], run["x_final"]]
    flips = 0
    for i, x_t in enumerate(run["x_t"]):
        k = len(schedule) - 1 - i
        draw = recorded_draw([draws["z"][i : i + 1]])
        output = solver.step(x_t[None], k, schedule, draws["y"], NOISE, operator, prior, GUIDANCES[kind], draw)
        if ((output.x0[0].abs() >= 1) != (run["x0_hat"][i].abs() >= 1)).any():
            flips += 1
            continue
        assert (output.z[0] - states[i + 1]).abs().max() < 1e-4
    assert flips <= len(run["x_t"]) // 3
