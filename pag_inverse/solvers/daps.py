"""Decoupled annealing posterior sampling (Zhang et al., 2024) with PAG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from operators import Draw
from operators.validation import LARGEST_SIGMA
from pag_inverse.guidance import GuidedModel
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem
from pag_inverse.schedule import Schedule
from pag_inverse.settings import Count, Positive, Unit, settings
from pag_inverse.solvers.base import Solver, State, StepOutput
from pag_inverse.solvers.data_term import data_gradient, gain
from pag_inverse.solvers.posterior import noise_sigma

ODE_END = 0.01  # sigma of the last evaluation along the ODE
STABLE = 1.9  # Langevin steps diverge from 2 on, the rate times the largest curvature


@dataclass(frozen=True)
class DapsState(State):
    """x_t, as z, and ||A||^2 of each image's operator, (B,), 0 where it is not known."""

    gain: Tensor


@settings
class DAPS(Solver):
    """x0 = ODE(x_t), x ~ p(y | x) N(x; x0, sigma_t^2) by Langevin steps, x_{t-1} = x + sigma_{t-1} n.

    A step follows the probability-flow ODE from x_t to x0 with `ode_steps` Euler steps, then takes `langevin_steps` of
    x += rate (A* (y - A x) / tau^2 + (x0 - x) / sigma_t^2) + sqrt(2 rate) n (Algorithm 1). `rate` falls linearly from
    lr to lr times lr_ratio over the chain. The operator may be non-linear. No graph goes through the network.
    ValueError: sigma_min above sigma_max.

    Langevin steps diverge where rate (||A||^2 / tau^2 + 1 / sigma_t^2) is above 2. For a linear operator `rate` is
    shortened to where this is 1.9, for each image. A non-linear one has no ||A||: take a smaller lr if it diverges.

    The state is x_t sqrt(abar), which is what a network of a variance-preserving chain takes.

    >>> from pag_inverse import DAPS, load_prior
    >>> DAPS(sigma_max=10.0).schedule(load_prior("pixel"), 4).timesteps.tolist()
    [26, 186, 470, 674]
    """

    ode_steps: Annotated[Count, Field(le=1000, description="Euler steps of the ODE, a pass of the network each")] = 5
    langevin_steps: Annotated[Count, Field(le=10_000, description="Langevin steps at each noise level")] = 100
    lr: Annotated[Positive, Field(description="of a Langevin step, at the largest noise level")] = 1e-4
    lr_ratio: Annotated[Unit, Field(description="of lr, at the smallest noise level")] = 0.01
    tau: Annotated[
        Positive | None,
        Field(le=LARGEST_SIGMA, description="standard deviation that the data term supposes; null: the noise's own"),
    ] = 0.01
    sigma_max: Annotated[Positive, Field(description="the largest noise level, of images in [-1, 1]")] = 100.0
    sigma_min: Annotated[Positive, Field(description="the smallest noise level")] = 0.1
    ode_eps: Annotated[Literal["guided", "unguided"], Field(description="the eps that moves along the ODE")] = "guided"
    data_x0: Annotated[
        Literal["unguided", "guided"],
        Field(description="the eps of the ODE's last step, whose x0 meets the measurement"),
    ] = "unguided"

    default_prior: ClassVar[str] = "pixel"
    backward: ClassVar[bool] = False
    pixel_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.sigma_min > self.sigma_max:
            raise ValueError(f"sigma_min is {self.sigma_min:g}; it must be at most sigma_max, {self.sigma_max:g}")

    def schedule(self, prior: Prior, steps: int) -> Schedule:
        """The noise levels of the annealing."""
        return Schedule.edm(prior.betas, steps, self.sigma_max, self.sigma_min)

    def start(self, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw) -> DapsState:
        """Noise, and how much the operator enlarges an image."""
        return DapsState(super().start(problem, model, schedule, draw).z, self._gain(problem))

    def step(
        self, state: State, i: int, problem: InverseProblem, model: GuidedModel, schedule: Schedule, draw: Draw
    ) -> StepOutput:
        """One noise level for every image of the batch."""
        assert isinstance(state, DapsState)
        sigma, prev = schedule.sigma(i), float(schedule.abar_prev[i])
        x0 = self._ode(state.z, sigma, model)  # 1: the probability-flow ODE down to an image
        x = x0
        tau2 = noise_sigma(problem) ** 2 if self.tau is None else self.tau**2
        longest = STABLE / (state.gain / tau2 + 1 / sigma**2)[:, None, None, None].to(x)
        rate = longest.clamp(max=self.lr * (self.lr_ratio + (1 - self.lr_ratio) * i / max(1, len(schedule) - 1)))
        for _ in range(self.langevin_steps):  # 2: Langevin steps towards the measurement
            score = (x0 - x) / sigma**2 - self._data_gradient(x, problem, model) / tau2
            x = x + rate * score + (2 * rate) ** 0.5 * draw(tuple(x.shape))
        z = prev**0.5 * x + (1 - prev) ** 0.5 * draw(tuple(x.shape)) if i > 0 else x  # 3: noise of the next level
        image = model.decode(x)
        return StepOutput(DapsState(z, state.gain), image, problem.residual(image))

    def _gain(self, problem: InverseProblem) -> Tensor:
        """||A||^2 of each image, (B,), 0 where it is not known."""
        return gain(problem)

    def _ode(self, x_t: Tensor, sigma: float, model: GuidedModel) -> Tensor:
        """x0 from x_t: an Euler step in sigma is a DDIM step without noise."""
        levels = Schedule.edm(model.prior.betas, self.ode_steps, sigma, min(ODE_END, sigma / 10))
        for j in reversed(range(len(levels))):
            eps = model(x_t, int(levels.timesteps[j]))
            kind = self.ode_eps if j > 0 else self.data_x0
            chosen = eps.guided if kind == "guided" else eps.unguided
            x_t = levels.ddim_step(levels.predict_x0(x_t, chosen, j), chosen, j, 0.0, None)
        return x_t

    def _data_gradient(self, x: Tensor, problem: InverseProblem, model: GuidedModel) -> Tensor:
        """The gradient of ||y - A(x)||^2 / 2."""
        return data_gradient(problem, x)
