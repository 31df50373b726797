"""One step of PiGDM, DiffPIR and MMPS against deepinv's and azula's, independent libraries, on shared denoisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import Blur, GaussianNoise, Inpainting, Operator, random_mask
from pag_inverse import DiffPIR, InverseProblem, PiGDM
from pag_inverse.guidance.guidance import GuidedEps
from pag_inverse.schedule import BETAS, Schedule
from pag_inverse.solvers import MMPS, Solver, State, StepOutput

WHY = "is not installed: pip install '.[test]'"
deepinv = pytest.importorskip("deepinv", reason=f"deepinv {WHY}")
guidance = pytest.importorskip("azula.guidance", reason=f"azula {WHY}")
denoise = pytest.importorskip("azula.denoise", reason=f"azula {WHY}")
covariance = pytest.importorskip("azula.linalg.covariance", reason=f"azula {WHY}")

SHAPE, SIGMA = (3, 8, 6), 0.1
SIZE = 3 * 8 * 6
SCHEDULE = Schedule.ddpm(BETAS["linear"](), 10, "even")
KERNEL = np.random.default_rng(1).uniform(size=(3, 5)) / 8
MASK = random_mask(SHAPE, np.random.default_rng(0))


class PreciseBlur(Blur):
    """A blur whose linear solves go on to rounding errors, so that what differs are the equations."""

    def _solve(self, r: Tensor, rho: Tensor, start: Tensor | None, tolerance: float, iterations: int) -> Tensor:
        return super()._solve(r, rho, start, 1e-10, 500)


OPERATORS: dict[str, Callable[[], tuple[Operator, Any]]] = {
    "blur": lambda: (
        PreciseBlur(KERNEL, SHAPE),
        deepinv.physics.Blur(filter=torch.from_numpy(KERNEL)[None, None].float(), padding="reflect"),
    ),
    "mask": lambda: (
        Inpainting(MASK, SHAPE),
        deepinv.physics.Inpainting(img_size=SHAPE, mask=torch.from_numpy(MASK)[None]),
    ),
}
Denoiser = Callable[[Tensor, float], Tensor]  # x0 of x_t and abar
operators = pytest.mark.parametrize("pair", OPERATORS.values(), ids=OPERATORS)
steps = pytest.mark.parametrize("i", [1, 4, 7])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(largest: float) -> tuple[Tensor, Denoiser]:
    """N(0, C), the eigenvalues of C from 0.01 to `largest`: its covariance, and its exact denoiser."""
    vectors, _ = torch.linalg.qr(normal(3, SIZE, SIZE))
    values = torch.logspace(-2, np.log10(largest), SIZE, dtype=torch.float64)
    prior = vectors @ torch.diag(values) @ vectors.T

    def x0(x_t: Tensor, abar: float) -> Tensor:
        gain = abar**0.5 * prior @ torch.linalg.inv(abar * prior + (1 - abar) * torch.eye(SIZE, dtype=torch.float64))
        return (x_t.flatten(1) @ gain.T.to(x_t)).view_as(x_t)

    return prior, x0


def network(x_t: Tensor, abar: float) -> Tensor:
    """Two random layers, whose Jacobian is not symmetric; short enough for PiGDM's bound on the correction."""
    first, second = (normal(seed, 3, 3, 3, 3).to(x_t) / 30 for seed in (1, 2))
    hidden = torch.nn.functional.conv2d(x_t, first, padding=1).tanh() + 0.2 * x_t
    return abar**0.5 * (hidden + torch.nn.functional.conv2d(hidden, second, padding=1))


DENOISERS = {"gaussian": gaussian(1.0)[1], "network": network}
denoisers = pytest.mark.parametrize("denoiser", DENOISERS.values(), ids=DENOISERS)


def our_step(solver: Solver, denoiser: Denoiser, operator: Operator, i: int, sigma: float = SIGMA) -> StepOutput:
    """Step i of ours from the shared state, without guidance."""

    def model(z: Tensor, t: int) -> GuidedEps:
        abar = float(SCHEDULE.abar[i])
        eps = (z - abar**0.5 * denoiser(z, abar)) / (1 - abar) ** 0.5
        return GuidedEps(eps.detach(), eps, None)

    problem = InverseProblem(measurement(operator), operator, GaussianNoise(sigma))
    return solver.step(State(state(i)), i, problem, model, SCHEDULE, lambda shape: normal(9, *shape))  # type: ignore[arg-type]


def measurement(operator: Operator) -> Tensor:
    return operator.forward(normal(5, 2, *SHAPE)) + SIGMA * normal(6, 2, *SHAPE)


def state(i: int) -> Tensor:
    abar = float(SCHEDULE.abar[i])
    return abar**0.5 * normal(5, 2, *SHAPE) + (1 - abar) ** 0.5 * normal(7, 2, *SHAPE)


def deepinv_x0(fidelity: Any, denoiser: Denoiser, operator: Operator, physics: Any, i: int) -> Tensor:
    """x0 + sbar^2 grad log p(y | x), x = x_t / sqrt(abar): Tweedie's formula with deepinv's gradient."""
    abar = float(SCHEDULE.abar[i])
    sbar = ((1 - abar) / abar) ** 0.5
    physics.noise_model = deepinv.physics.GaussianNoise(SIGMA)
    fidelity.denoiser = lambda x, sigma: denoiser(x * abar**0.5, abar)
    gradient = fidelity.grad(state(i) / abar**0.5, measurement(operator), physics, sbar)
    return denoiser(state(i), abar) - sbar**2 * gradient


class AzulaDenoiser(denoise.Denoiser):  # type: ignore[misc,name-defined]
    """The shared denoiser for azula, whose states are vectors; its time is the step."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        abar = torch.tensor(float(SCHEDULE.abar[int(t)]), dtype=torch.float64)
        return abar.sqrt(), (1 - abar).sqrt()

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> Any:
        x0 = self.denoiser(x_t.view(-1, *SHAPE), float(SCHEDULE.abar[int(t)]))
        return denoise.DiracPosterior(mean=x0.flatten(1))


def flat(operator: Operator) -> Callable[[Tensor], Tensor]:
    return lambda x: operator.forward(x.view(-1, *SHAPE)).flatten(1)


def azula_x0(kind: Any, denoiser: Denoiser, operator: Operator, i: int, **options: Any) -> Tensor:
    peer = kind(AzulaDenoiser(denoiser), measurement(operator).flatten(1), flat(operator), solver="cg", **options)
    return peer(state(i).flatten(1), torch.tensor(i)).mean.view(-1, *SHAPE)


@operators
@denoisers
@steps
def test_pigdm_corrects_x0_as_deepinv_does(
    pair: Callable[[], tuple[Operator, Any]], denoiser: Denoiser, i: int
) -> None:
    operator, physics = pair()
    fidelity = deepinv.sampling.PiGDMDataFidelity(cg_max_iter=100, cg_tol=1e-8)
    expected = deepinv_x0(fidelity, denoiser, operator, physics, i)
    found = our_step(PiGDM(), denoiser, operator, i).x0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@operators
@denoisers
@steps
def test_mmps_corrects_x0_as_azula_does(pair: Callable[[], tuple[Operator, Any]], denoiser: Denoiser, i: int) -> None:
    """The same iterates of conjugate gradients."""
    operator, _ = pair()
    noise = covariance.IsotropicCovariance(SIGMA**2)
    for iterations in (1, 3, 10):
        expected = azula_x0(guidance.mmps.MMPSDenoiser, denoiser, operator, i, cov_y=noise, iterations=iterations)
        found = our_step(MMPS(iterations=iterations, tolerance=0.0, precondition=False), denoiser, operator, i).x0
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@operators
@steps
def test_mmps_corrects_x0_as_deepinv_does(pair: Callable[[], tuple[Operator, Any]], i: int) -> None:
    operator, physics = pair()
    fidelity = deepinv.sampling.MomentMatchingDataFidelity(cg_max_iter=50, cg_tol=1e-8)
    expected = deepinv_x0(fidelity, DENOISERS["gaussian"], operator, physics, i)
    found = our_step(MMPS(iterations=50, tolerance=1e-8), DENOISERS["gaussian"], operator, i).x0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@operators
@denoisers
@steps
def test_diffpir_corrects_x0_as_azula_does(
    pair: Callable[[], tuple[Operator, Any]], denoiser: Denoiser, i: int
) -> None:
    operator, _ = pair()
    options = {"var_y": SIGMA**2, "lmbda": 7.0, "iterations": 100}
    expected = azula_x0(guidance.diffpir.DiffPIRDenoiser, denoiser, operator, i, **options)
    found = our_step(DiffPIR(weight=7.0), denoiser, operator, i).x0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def exact_x0(prior: Tensor, denoiser: Denoiser, operator: Operator, i: int) -> Tensor:
    """E[x0 | x_t, y] of the Gaussian prior, by dense algebra."""
    abar, identity = float(SCHEDULE.abar[i]), torch.eye(SIZE, dtype=torch.float64)
    x0 = denoiser(state(i), abar)
    given = prior - abar * prior @ torch.linalg.inv(abar * prior + (1 - abar) * identity) @ prior
    a = flat(operator)(identity).T
    gain = given @ a.T @ torch.linalg.inv(a @ given @ a.T + SIGMA**2 * identity)
    return x0 + ((measurement(operator) - operator.forward(x0)).flatten(1) @ gain.T).view_as(x0)


@operators
@pytest.mark.parametrize("largest", [1.0, 20.0])
@steps
def test_mmps_is_exact(pair: Callable[[], tuple[Operator, Any]], largest: float, i: int) -> None:
    operator, _ = pair()
    prior, denoiser = gaussian(largest)
    found = our_step(MMPS(iterations=200, tolerance=1e-9, variance=1e3), denoiser, operator, i).x0
    torch.testing.assert_close(found, exact_x0(prior, denoiser, operator, i), rtol=0, atol=1e-4)


@operators
@pytest.mark.parametrize("i", [4, 7])
def test_pigdm_does_not_go_as_far_as_deepinv_where_the_prior_varies_by_more_than_one(
    pair: Callable[[], tuple[Operator, Any]], i: int
) -> None:
    """r^2 = sbar^2 / (1 + sbar^2) is the covariance given x_t for a variance of 1. With 20 along some direction the
    Jacobian is far larger, and deepinv's correction too long; ours points the same way and ends nearer E[x0 | x_t, y].
    """
    operator, physics = pair()
    prior, denoiser = gaussian(20.0)
    x0, exact = denoiser(state(i), float(SCHEDULE.abar[i])), exact_x0(prior, denoiser, operator, i)
    theirs = deepinv_x0(
        deepinv.sampling.PiGDMDataFidelity(cg_max_iter=100, cg_tol=1e-8), denoiser, operator, physics, i
    )
    ours = our_step(PiGDM(), denoiser, operator, i).x0
    assert ours is not None
    for b in range(2):
        directions = [(x[b] - x0[b]) / (x[b] - x0[b]).norm() for x in (ours, theirs)]
        torch.testing.assert_close(*directions, rtol=0, atol=1e-4)
        assert (ours[b] - x0[b]).norm() < 0.5 * (theirs[b] - x0[b]).norm()
        assert (ours[b] - exact[b]).norm() < (theirs[b] - exact[b]).norm()


@denoisers
@steps
def test_pigdm_moves_further_than_azula_by_one_over_abar(denoiser: Denoiser, i: int) -> None:
    """azula adds sqrt(abar) J^T A^+ (y - A x0) to x0, J = d x0 / d x_t, and has no noise. The posterior of the step's
    Gaussian model asks for (1 - abar) / sqrt(abar) J^T A* (r^2 A A* + sigma^2)^-1 (y - A x0).
    """
    operator, sigma, abar = Inpainting(MASK, SHAPE), 0.01, float(SCHEDULE.abar[i])
    y = measurement(operator).flatten(1)
    sampler = guidance.pgdm.PGDMSampler(AzulaDenoiser(denoiser), y, flat(operator), flat(operator), eta=0.0)
    theirs = sampler.step(state(i).flatten(1), torch.tensor(i), torch.tensor(i - 1)).view(-1, *SHAPE)
    ours = our_step(PiGDM(renoise="unguided", ddim_eta=0.0), denoiser, operator, i, sigma).z
    x0 = denoiser(state(i), abar)
    uncorrected = SCHEDULE.ddim_step(x0, (state(i) - abar**0.5 * x0) / (1 - abar) ** 0.5, i, 0.0, None)
    damped = (1 - abar) / (1 - abar + sigma**2)
    torch.testing.assert_close((ours - uncorrected) * abar / damped, theirs - uncorrected, rtol=0, atol=1e-6)


@steps
def test_pigdm_meets_what_was_measured_without_noise(i: int) -> None:
    """Which of the two is right: under the prior N(0, 1), E[x0 | x_t, y] is y wherever y was measured exactly."""
    operator = Inpainting(MASK, SHAPE)
    found = our_step(PiGDM(), lambda x_t, abar: abar**0.5 * x_t, operator, i, sigma=0.0).x0
    assert found is not None
    measured = operator.forward(measurement(operator))
    torch.testing.assert_close(operator.forward(found), measured, rtol=0, atol=2e-3)


@steps
def test_diffpir_of_deepinv_has_half_the_damping(i: int) -> None:
    """deepinv's prox has 2 rho, and sigma on [0, 1] beside sbar on [-1, 1]: half of rho = lambda sigma^2 / sbar^2 with
    both on [-1, 1], which Zhu et al. write (Algorithm 1). Its lambda of 7 is our 3.5.
    """
    operator, physics = OPERATORS["mask"]()
    physics.noise_model = deepinv.physics.GaussianNoise(SIGMA / 2)
    data_fidelity = deepinv.optim.data_fidelity.L2()
    peer = deepinv.sampling.DiffPIR(torch.nn.Identity(), data_fidelity, sigma=SIGMA / 2, lambda_=7.0)
    rho = float(peer.rhos[int(SCHEDULE.timesteps[i])])
    x0 = DENOISERS["network"](state(i), float(SCHEDULE.abar[i]))
    y = (measurement(operator) + operator.forward(torch.ones_like(x0))) / 2  # of images in [0, 1]
    options = {"gamma": 1 / (2 * rho), "max_iter": 200, "tol": 1e-9}
    expected = 2 * data_fidelity.prox((x0.float() + 1) / 2, y.float(), physics, **options) - 1
    found = our_step(DiffPIR(weight=3.5), DENOISERS["network"], operator, i).x0
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-4)
