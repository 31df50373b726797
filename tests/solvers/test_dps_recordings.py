"""DPS step by step against recorded runs of the published program, with and without PAG."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, Operator, SuperResolution
from pag_inverse.guidance import GuidedModel, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import PixelPrior
from pag_inverse.problem import InverseProblem
from pag_inverse.restoration.loop import solve
from pag_inverse.runtime.streams import recorded_draw
from pag_inverse.solvers import DPS, State, StepOutput

KINDS = ["nopag", "pag"]
PRIORS = {"random": "adm", "trained": "adm_trained"}
NOISE = GaussianNoise(0.05)


class Run:
    """A recorded run and what repeats it. Of a run that is kept in part, the rows that are left out are NaN."""

    def __init__(self, name: str, kind: str, request: pytest.FixtureRequest) -> None:
        recordings = request.getfixturevalue("recordings")
        self.draws = recordings.load(f"dps_trajectory/{name}_draws.npz")
        self.data = recordings.load(f"dps_trajectory/{name}_{kind}.npz")
        network, task, _ = name.split("_")
        self.prior: PixelPrior = request.getfixturevalue(PRIORS[network])
        shape = (3, 64, 64)
        operator: Operator = GaussianBlur(shape) if task == "gauss" else SuperResolution(shape, 8)
        self.problem = InverseProblem(self.draws["y"], operator, NOISE)
        self.guidance = NoGuidance() if kind == "nopag" else PerturbedAttentionGuidance(1.0, ["input_blocks.5.1"])
        self.eta = float(self.draws["scale"])
        self.states = [*self.data["x_t"], self.data["x_final"]]
        self.schedule = DPS(self.eta).schedule(self.prior, len(self.draws["timestep_map"]))

    def kept(self) -> list[int]:
        """The steps of which all is recorded."""
        whole = [not bool(x.isnan().any()) for x in self.states]
        return [i for i in range(len(self.states) - 1) if whole[i] and whole[i + 1]]

    def step(self, i: int, eta: float) -> StepOutput:
        """Step i in the order of execution, from the recorded state."""
        model = GuidedModel(self.prior, self.guidance)
        draw = recorded_draw([self.draws["z"][i : i + 1]])
        k = len(self.schedule) - 1 - i
        return DPS(eta).step(State(self.states[i][None]), k, self.problem, model, self.schedule, draw)

    def flips(self, i: int, x0: Tensor) -> bool:
        """Whether a pixel meets the clamp on one side only: a last bit then changes the whole gradient."""
        return bool(((x0[0].abs() >= 1) != (self.data["x0_hat"][i].abs() >= 1)).any())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    ["random_gauss_20", "trained_gauss_20", "trained_sr8_20", "trained_gauss_first5of1000", "trained_sr8_first5of1000"],
)
def test_each_step_from_the_recorded_state(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    run = Run(name, kind, request)
    assert run.schedule.timesteps.tolist() == run.draws["timestep_map"].tolist()
    assert abs(run.schedule.betas - run.draws["betas_respaced"].numpy()).max() < 1e-12
    compared = 0
    for i in run.kept():
        output = run.step(i, run.eta)
        if run.flips(i, output.x0):
            continue
        compared += 1
        assert (output.z[0] - run.states[i + 1]).abs().max() < 1e-4
        assert float(output.residual) == pytest.approx(float(run.data["norm"][i]), rel=1e-4)
        if i % 5 == 0:
            grad = (run.step(i, 0.0).z - output.z)[0] / run.eta
            assert (grad - run.data["grad"][i]).norm() < 1e-4 * run.data["grad"][i].norm()
    assert compared >= 2 / 3 * len(run.kept()) > 0


# From the start on: two steps of the random network, whose chain is chaotic afterwards, and all of the trained one's.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "steps"), [("random_gauss_20", 2), ("trained_gauss_20", 20)])
def test_free_running(name: str, steps: int, kind: str, request: pytest.FixtureRequest) -> None:
    run = Run(name, kind, request)
    found: list[Tensor] = []
    solve(
        run.problem.y,
        run.problem.operator,
        run.prior,
        DPS(run.eta),
        run.guidance,
        noise=NOISE,
        steps=20,
        seeds=[0],
        draw=recorded_draw([run.draws["x_T"], *run.draws["z"][:-1].nan_to_num(0).unsqueeze(1)]),
        callback=lambda done, total, output: found.append(output.z[0]) or done == steps,
    )
    differences = torch.stack(found) - torch.stack(run.states[1 : steps + 1])
    assert float(differences.abs().max()) < 1e-3
