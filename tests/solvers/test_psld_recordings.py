"""PSLD step by step and free running against recorded runs, each option, with and without PAG."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, SuperResolution
from pag_inverse import PSLD, LatentPrior, NoGuidance, PerturbedAttentionGuidance, solve
from pag_inverse.settings.tables import SolverOptions
from pag_inverse.runtime.streams import recorded_draw

DATA = Path(__file__).parents[1] / "data"
LAYER = ["down_blocks.1.attentions.1.transformer_blocks.0.attn1"]
NOISE = GaussianNoise(0.05)
OWN = ["sr8_official", "sr8_mode_cleanpred", "sr8_nopag_mode_cleanpred", "gauss_mode_cleanpred"]
FURTHER = ["gauss_official", "gauss_mode", "gauss_nopag_mode_cleanpred"]


class Run:
    """A recorded run and the objects that repeat it."""

    def __init__(self, name: str, recordings) -> None:
        self.data = recordings.load(f"psld_trajectory/{name}.npz", DATA if name in OWN else None)
        self.operator = SuperResolution((3, 128, 128), 8) if name.startswith("sr8") else GaussianBlur((3, 128, 128))
        self.noises = [self.data[k] for k in ("draw_pred_meas_noise", "draw_vae_noise") if k in self.data]
        self.solver = PSLD(
            float(self.data["omega"]),
            float(self.data["gamma"]),
            SolverOptions(
                renoise_prediction="draw_pred_meas_noise" in self.data,
                encode="sample" if "draw_vae_noise" in self.data else "mode",
            ),
        )
        s = float(self.data["pag_scale"])
        self.guidance = PerturbedAttentionGuidance(s, LAYER) if s > 1e-9 else NoGuidance()

    def draws(self, i: int) -> list[Tensor]:
        return [noise[i : i + 1] for noise in self.noises]


@pytest.mark.parametrize("name", OWN + FURTHER)
def test_each_step_from_the_recorded_state(name: str, tiny_sd: LatentPrior, recordings) -> None:
    run = Run(name, recordings)
    schedule = run.solver.schedule(tiny_sd, 10)
    for i, z_t in enumerate(run.data["z_t"]):
        draw = recorded_draw(run.draws(i))
        output = run.solver.step(
            z_t[None], 9 - i, schedule, run.data["y"], NOISE, run.operator, tiny_sd, run.guidance, draw
        )
        expected = run.data["z_prev"][i]
        assert float((output.z[0] - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("name", OWN + FURTHER)
def test_ten_steps_free_running(name: str, tiny_sd: LatentPrior, recordings) -> None:
    run = Run(name, recordings)
    states: list[Tensor] = []
    draw = recorded_draw([run.data["x_T"], *(noise for i in range(10) for noise in run.draws(i))])
    solve(
        run.data["y"],
        run.operator,
        tiny_sd,
        run.solver,
        run.guidance,
        noise=NOISE,
        steps=10,
        seeds=[0],
        draw=draw,
        callback=lambda done, total, output: states.append(output.z[0]),
    )
    assert float((torch.stack(states) - run.data["z_prev"]).abs().max() / run.data["z_prev"].abs().max()) < 1e-3
