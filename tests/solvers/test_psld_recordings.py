"""PSLD step by step and free running against recorded runs, each option, with and without PAG."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, SuperResolution
from pag_inverse.guidance import GuidedModel, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import LatentPrior
from pag_inverse.problem import InverseProblem
from pag_inverse.restoration.loop import solve
from pag_inverse.runtime.streams import recorded_draw
from pag_inverse.solvers import PSLD, State

LAYER = ["down_blocks.1.attentions.1.transformer_blocks.0.attn1"]
NOISE = GaussianNoise(0.05)
NAMES = ["sr8_official", "sr8_mode_cleanpred", "sr8_nopag_mode_cleanpred", "gauss_mode_cleanpred",
         "gauss_official", "gauss_mode", "gauss_nopag_mode_cleanpred"]  # fmt: skip


class Run:
    """A recorded run and the objects that repeat it."""

    def __init__(self, name: str, recordings) -> None:
        self.data = recordings.load(f"psld_trajectory/{name}.npz")
        shape = (3, 128, 128)
        operator = SuperResolution(shape, 8) if name.startswith("sr8") else GaussianBlur(shape)
        self.problem = InverseProblem(self.data["y"], operator, NOISE)
        self.noises = [self.data[k] for k in ("draw_pred_meas_noise", "draw_vae_noise") if k in self.data]
        self.solver = PSLD(
            eta=float(self.data["omega"]),
            gamma=float(self.data["gamma"]),
            renoise_prediction="draw_pred_meas_noise" in self.data,
            encode="sample" if "draw_vae_noise" in self.data else "mode",
        )
        s = float(self.data["pag_scale"])
        self.guidance = PerturbedAttentionGuidance(s, LAYER) if s > 1e-9 else NoGuidance()

    def draws(self, i: int) -> list[Tensor]:
        return [noise[i : i + 1] for noise in self.noises]


@pytest.mark.parametrize("name", NAMES)
def test_each_step_from_the_recorded_state(name: str, tiny_sd: LatentPrior, recordings) -> None:
    run = Run(name, recordings)
    schedule, model = run.solver.schedule(tiny_sd, 10), GuidedModel(tiny_sd, run.guidance)
    for i, z_t in enumerate(run.data["z_t"]):
        draw = recorded_draw(run.draws(i))
        output = run.solver.step(State(z_t[None]), 9 - i, run.problem, model, schedule, draw)
        expected = run.data["z_prev"][i]
        assert float((output.z[0] - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_ten_steps_free_running(name: str, tiny_sd: LatentPrior, recordings) -> None:
    run = Run(name, recordings)
    states: list[Tensor] = []
    draw = recorded_draw([run.data["x_T"], *(noise for i in range(10) for noise in run.draws(i))])
    solve(
        run.problem.y,
        run.problem.operator,
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
