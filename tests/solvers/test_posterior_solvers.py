"""PiGDM, MMPS, DDNM+ and DiffPIR: their equations written out for a prior and an operator of one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, Inpainting, NoNoise, Operator, SuperResolution
from pag_inverse import (
    DDNM,
    MMPS,
    DiffPIR,
    GuidedModel,
    InverseProblem,
    LatentPrior,
    NoGuidance,
    PerturbedAttentionGuidance,
    PiGDM,
    PixelPrior,
    Solver,
    State,
    restore,
    solve,
)
from pag_inverse.guidance.guidance import GuidedEps
from pag_inverse.priors.base import Prior
from pag_inverse.schedule import BETAS, Schedule
from pag_inverse.solvers.posterior import SMALLEST_SIGMA

SHAPE = (3, 8, 8)
MEAN, STD, SIGMA, STEPS, INDEX = 0.2, 0.7, 0.3, 20, 12
SOLVERS: list[Solver] = [
    PiGDM(),
    PiGDM(jacobian=False, weight=4.0),
    PiGDM(draw_x0=True),
    MMPS(),
    DDNM(),
    DiffPIR(),
]
NAMES = ["pigdm", "jacobian_free", "draw_x0", "mmps", "ddnm", "diffpir"]
MakePrior = Callable[[float, float], Prior]


class Half(Operator):
    """y = x / 2."""

    def _forward(self, x: Tensor) -> Tensor:
        return x / 2


def problem_of(y: Tensor, sigma: float = SIGMA) -> InverseProblem:
    return InverseProblem(y, Half(SHAPE, SHAPE), GaussianNoise(sigma) if sigma else NoNoise())


class Shifted:
    """A guidance whose guided eps is the unguided one plus a number."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def __call__(self, prior: Prior, z: Tensor, t: int) -> GuidedEps:
        eps = NoGuidance()(prior, z, t)
        return replace(eps, guided=eps.guided + self.shift)


def one_step(solver: Solver, gaussian: MakePrior, shift: float = 0.0, sigma: float = SIGMA) -> dict[str, Any]:
    """One step in float64, and every quantity of it: x_t, y, n, eps, x0 and the chain's numbers."""
    prior, generator = gaussian(MEAN, STD), torch.Generator().manual_seed(3)
    x_t, y, n = (torch.randn(1, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(3))
    schedule = solver.schedule(prior, STEPS)
    output = solver.step(
        State(x_t), INDEX, problem_of(y, sigma), GuidedModel(prior, Shifted(shift)), schedule, lambda _: n
    )
    a, prev = float(schedule.abar[INDEX]), float(schedule.abar_prev[INDEX])
    eps = (1 - a) ** 0.5 * (x_t - a**0.5 * MEAN) / (a * STD**2 + 1 - a)
    x0 = (x_t - (1 - a) ** 0.5 * eps) / a**0.5
    guided = (x_t - (1 - a) ** 0.5 * (eps + shift)) / a**0.5
    return {"x_t": x_t, "y": y, "n": n, "eps": eps, "x0": x0, "guided": guided, "a": a, "prev": prev, "output": output}


def ddim(q: dict[str, Any], x0: Tensor, eta: float = 1.0) -> Tensor:
    """DDIM from x0 with the eps of x0."""
    a, prev = q["a"], q["prev"]
    s = eta * ((1 - prev) / (1 - a) * (1 - a / prev)) ** 0.5
    eps = (q["x_t"] - a**0.5 * x0) / (1 - a) ** 0.5
    result: Tensor = prev**0.5 * x0 + (1 - prev - s**2) ** 0.5 * eps + s * q["n"]
    return result


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_pigdm(gaussian: MakePrior, shift: float) -> None:
    q = one_step(PiGDM(variance=STD**2), gaussian, shift)
    r2 = STD**2 * (1 - q["a"]) / (STD**2 * q["a"] + 1 - q["a"])  # the variance of the image given x_t
    move = r2 * 0.5 * (q["y"] - 0.5 * q["x0"]) / (r2 * 0.25 + SIGMA**2)  # of the posterior's mean
    torch.testing.assert_close(q["output"].x0, q["x0"] + move)
    torch.testing.assert_close(q["output"].z, ddim(q, q["guided"] + move))


def test_pigdm_without_a_jacobian_is_the_same_where_r2_is_right(gaussian: MakePrior) -> None:
    with_jacobian, without = (one_step(PiGDM(variance=STD**2, jacobian=j), gaussian)["output"].z for j in (True, False))
    torch.testing.assert_close(with_jacobian, without)


def test_weight_divides_r2(gaussian: MakePrior) -> None:
    q = one_step(PiGDM(variance=STD**2, jacobian=False, weight=4.0), gaussian)
    r2 = STD**2 * (1 - q["a"]) / (STD**2 * q["a"] + 1 - q["a"]) / 4
    torch.testing.assert_close(q["output"].x0, q["x0"] + r2 * 0.5 * (q["y"] - 0.5 * q["x0"]) / (r2 * 0.25 + SIGMA**2))


def test_mmps_needs_no_variance(gaussian: MakePrior) -> None:
    mmps, pigdm = one_step(MMPS(), gaussian, 0.4), one_step(PiGDM(variance=STD**2), gaussian, 0.4)
    torch.testing.assert_close(mmps["output"].z, pigdm["output"].z)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_ddnm(gaussian: MakePrior, shift: float) -> None:
    q = one_step(DDNM(eta=0.8, damping=2.0), gaussian, shift)
    rho = 2.0 * SIGMA**2 * q["prev"] / (1 - q["prev"])
    move = 0.5 / (0.25 + rho) * (q["y"] - 0.5 * q["x0"])
    torch.testing.assert_close(q["output"].x0, q["x0"] + move, rtol=1e-4, atol=1e-4)  # by conjugate gradients
    gamma = max(1 - q["prev"] - q["prev"] * SIGMA**2, 0) ** 0.5
    noise = 0.8 * q["n"] + 0.6 * (q["eps"] + shift)
    torch.testing.assert_close(
        q["output"].z, q["prev"] ** 0.5 * (q["guided"] + move) + gamma * noise, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_diffpir(gaussian: MakePrior, shift: float) -> None:
    q = one_step(DiffPIR(weight=7.0, zeta=0.36), gaussian, shift)
    rho = 7.0 * SIGMA**2 * q["a"] / (1 - q["a"])
    move = 0.5 * (q["y"] - 0.5 * q["x0"]) / (0.25 + rho)
    x0 = q["guided"] + move
    eps = (q["x_t"] - q["a"] ** 0.5 * x0) / (1 - q["a"]) ** 0.5
    torch.testing.assert_close(q["output"].x0, q["x0"] + move, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        q["output"].z,
        q["prev"] ** 0.5 * x0 + (1 - q["prev"]) ** 0.5 * (0.8 * eps + 0.6 * q["n"]),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
def test_which_x0_meets_the_measurement(solver: Solver, gaussian: MakePrior) -> None:
    paper = one_step(solver, gaussian, shift=0.4)
    other = one_step(replace(solver, data_x0="guided"), gaussian, shift=0.4)  # type: ignore[type-var]
    gap = {q: float((found["output"].x0 - found[q]).abs().mean()) for q, found in (("x0", paper), ("guided", other))}
    assert all(value > 1e-3 for value in gap.values())
    # The correction is that of the x0 that meets the measurement: the other one lies elsewhere.
    assert not torch.allclose(paper["output"].x0 - paper["x0"], other["output"].x0 - other["guided"])
    assert not torch.allclose(paper["output"].z, other["output"].z)


@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
def test_renoising_with_the_unguided_eps_is_cfgpp(solver: Solver, gaussian: MakePrior) -> None:
    found = {kind: one_step(replace(solver, renoise=kind), gaussian, shift=0.4) for kind in ("guided", "unguided")}  # type: ignore[type-var]
    apart = found["guided"]["output"].z - found["unguided"]["output"].z
    assert float(apart.std()) < 1e-6 < float(apart.mean())  # a positive share of the shift
    torch.testing.assert_close(found["guided"]["output"].x0, found["unguided"]["output"].x0)


@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
def test_a_sigma_of_zero_is_taken_as_a_small_one(solver: Solver, gaussian: MakePrior) -> None:
    none, small = (one_step(solver, gaussian, sigma=sigma)["output"].z for sigma in (0.0, SMALLEST_SIGMA))
    assert torch.equal(none, small)


class Counted(Prior):
    """A prior that counts its passes, and those that a gradient can go through."""

    def __init__(self, prior: Any) -> None:
        self.prior, self.betas, self.name = prior, prior.betas, "counted"
        self.passes = self.recorded = self.backward = 0

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        return image_shape

    def decode(self, z: Tensor) -> Tensor:
        return z

    def encode(self, x: Tensor, draw: object = None) -> Tensor:
        return x

    def predict(self, z: Tensor, t: int, condition: Tensor | None = None) -> Any:
        self.passes += 1
        prediction = self.prior.predict(z, t, condition)
        if prediction.eps.requires_grad:
            self.recorded += 1
            prediction.eps.register_hook(self._count)
        return prediction

    def _count(self, _: Tensor) -> None:
        self.backward += 1


@pytest.mark.parametrize(
    ("solver", "backward"),
    [(PiGDM(), 6), (PiGDM(jacobian=False), 0), (MMPS(iterations=2, tolerance=0.0), 18), (DDNM(), 0), (DiffPIR(), 0)],
    ids=["pigdm", "jacobian_free", "mmps", "ddnm", "diffpir"],
)
def test_what_a_step_costs(solver: Solver, backward: int, pixel: PixelPrior) -> None:
    prior = Counted(pixel)
    operator = GaussianBlur((3, 32, 32), 9, 1.5)
    solve(
        torch.zeros(1, 3, 32, 32), operator, prior, solver, NoGuidance(), noise=GaussianNoise(0.05), steps=6, seeds=[0]
    )
    assert (prior.passes, prior.backward) == (6, backward)
    assert prior.recorded == (6 if backward else 0)


@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
def test_a_batch_equals_its_images(solver: Solver, pixel: PixelPrior) -> None:
    shape = (3, 32, 32)
    operator = Inpainting((torch.rand(3, *shape[1:], generator=torch.Generator().manual_seed(1)) > 0.5).float(), shape)
    y = operator.forward(torch.rand(3, *shape, generator=torch.Generator().manual_seed(2)) * 2 - 1)
    layers = [pixel.layers()[0].diffusers]

    def restored(numbers: list[int]) -> Tensor:
        guidance = PerturbedAttentionGuidance(1.0, layers)
        seeds = [10 + b for b in numbers]
        chosen = operator.select(numbers)
        return solve(y[numbers], chosen, pixel, solver, guidance, noise=GaussianNoise(0.1), steps=5, seeds=seeds).x

    together = restored([0, 1, 2])
    for b in range(3):
        torch.testing.assert_close(together[b], restored([b])[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
def test_refusals_in_one_sentence(solver: Solver, pixel: PixelPrior, latent: LatentPrior) -> None:
    class Square(Operator):
        linear = False

        def _forward(self, x: Tensor) -> Tensor:
            return x**2

    y, name = torch.zeros(1, 3, 32, 32), type(solver).__name__
    linear = InverseProblem(y, GaussianBlur((3, 32, 32), 9, 1.5), GaussianNoise(0.05))
    with pytest.raises(ValueError, match=f"^{name} needs a pixel prior"):
        solver.check(linear, latent)
    with pytest.raises(ValueError, match=f"^{name} needs a linear operator"):
        solver.check(InverseProblem(y, Square((3, 32, 32), (3, 32, 32)), GaussianNoise(0.05)), pixel)
    solver.check(linear, pixel)


@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
@pytest.mark.parametrize("task", ["mask", "blur", "super_resolution"])
def test_the_measurement_comes_out(solver: Solver, task: str, gaussian: MakePrior) -> None:
    shape = (3, 32, 32)
    ramp = torch.linspace(-0.6, 0.6, 32)
    x = (ramp[None, :] * ramp[:, None] / 0.6).expand(1, *shape).clone()
    known = (torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    operator = {
        "mask": lambda: Inpainting(known, shape),
        "blur": lambda: GaussianBlur(shape, 9, 1.5),
        "super_resolution": lambda: SuperResolution(shape, 2),
    }[task]()
    y = operator.forward(x)
    result = solve(
        y, operator, gaussian(0.0, 0.4), solver, NoGuidance(), noise=GaussianNoise(0.05), steps=40, seeds=[0]
    )
    assert not result.failed
    left = (operator.forward(result.x) - y).square().mean().sqrt()
    assert float(left) < 0.6 * float(y.square().mean().sqrt())
    assert np.isfinite(result.residuals.numpy()).all()


def test_the_chain_ends_at_the_image() -> None:
    assert Schedule.ddpm(BETAS["linear"](), 10).abar_prev[0] == 1.0


def test_diffpir_restores_a_jpeg() -> None:
    """It ends nearer to the truth than what the decoder shows: by 1.5 dB here."""
    truth = np.ascontiguousarray(skimage.data.chelsea()[60:124, 110:190])
    output = restore(truth, task="jpeg", steps=15)
    shown = output.problem.y[0].permute(1, 2, 0).numpy()
    before, after = (
        skimage.metrics.peak_signal_noise_ratio(truth / 127.5 - 1, picture, data_range=2)
        for picture in (shown, output.images / 127.5 - 1)
    )
    assert after > before + 0.5
