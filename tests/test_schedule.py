"""Schedules against the recorded ones and diffusers' own steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from pag_inverse.schedule import BETAS, Schedule, respaced_timesteps, spread_timesteps

DATA = Path(__file__).parent / "data"


def test_adm_respacing_of_twenty_steps() -> None:
    assert respaced_timesteps(20) == [
        0,
        53,
        105,
        158,
        210,
        263,
        315,
        368,
        421,
        473,
        526,
        578,
        631,
        684,
        736,
        789,
        841,
        894,
        946,
        999,
    ]


@pytest.mark.parametrize("steps", [1, 2, 3, 27, 250, 333, 999, 1000])
def test_any_number_of_steps(steps: int) -> None:
    for make, betas in ((Schedule.ddpm, "linear"), (Schedule.ddim, "scaled_linear")):
        schedule = make(BETAS[betas](), steps)
        assert len(schedule) == len(set(schedule.timesteps.tolist())) == steps
        assert np.all(np.diff(schedule.abar) < 0)
        assert schedule.timesteps[0] >= 0 and schedule.timesteps[-1] <= 1000


@pytest.mark.parametrize("spacing", ["quadratic", "quartic"])
@pytest.mark.parametrize("steps", [1, 2, 27, 100, 999, 1000])
def test_spread_spacings_visit_each_timestep_once_and_small_ones_more(steps: int, spacing: str) -> None:
    for make, betas in ((Schedule.ddpm, "linear"), (Schedule.ddim, "scaled_linear")):
        timesteps = make(BETAS[betas](), steps, spacing).timesteps
        assert len(timesteps) == steps and np.all(np.diff(timesteps) > 0)
        assert timesteps[0] <= 1 and (steps == 1 or 999 <= timesteps[-1] <= 1000)
        even = make(BETAS[betas](), steps).timesteps
        assert steps < 10 or timesteps.sum() <= even.sum()


def test_spread_spacings_follow_their_powers() -> None:
    assert spread_timesteps(11, "quadratic") == [0, 10, 40, 90, 160, 250, 360, 490, 639, 809, 999]
    assert spread_timesteps(11, "quartic") == [0, 1, 2, 8, 26, 62, 129, 240, 409, 655, 999]


@pytest.mark.parametrize("steps", [0, 1001, -3, 2.5, True])
def test_steps_outside_the_range(steps: object) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        Schedule.ddpm(BETAS["linear"](), steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [10, 50, 100, 1000])
def test_published_ddim_schedules(steps: int) -> None:
    recorded = np.load(DATA / "psld_trajectory" / "schedules.npz")
    schedule = Schedule.ddim(BETAS["scaled_linear"](), steps)
    assert schedule.timesteps.tolist() == recorded[f"S{steps}_timesteps"].tolist()
    np.testing.assert_allclose(schedule.abar, recorded[f"S{steps}_alphas"], atol=1e-7)
    np.testing.assert_allclose(schedule.abar_prev, recorded[f"S{steps}_alphas_prev"], atol=1e-7)


@pytest.mark.parametrize("steps", [10, 50, 500])
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_step_is_diffusers(steps: int, eta: float) -> None:
    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=False,
    )
    theirs.set_timesteps(steps)
    ours = Schedule.ddim(BETAS["scaled_linear"](), steps)
    assert theirs.timesteps.tolist() == ours.timesteps[::-1].tolist()
    z, eps, noise = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for i in (0, steps // 2, steps - 1):
        expected = theirs.step(eps, int(ours.timesteps[i]), z, eta=eta, variance_noise=noise).prev_sample
        found = ours.ddim_step(ours.predict_x0(z, eps, i), eps, i, eta, noise)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("variance", "f"), [("fixed_small", 0.0), ("fixed_large", 1.0), ("learned_range", None)])
def test_ddpm_step_is_diffusers(variance: str, f: float | None) -> None:
    """On the whole chain, where diffusers and ADM agree on what a respaced beta is."""
    theirs = DDPMScheduler(beta_schedule="linear", variance_type=variance, clip_sample=False)
    ours = Schedule.ddpm(BETAS["linear"](), 1000)
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 1, 3, 8, 8, generator=generator)
    v = torch.rand(1, 3, 8, 8, generator=generator) * 2 - 1
    output = torch.cat([eps, v], dim=1) if f is None else eps
    for i in (1, 10, 500, 999):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
        expected = theirs.step(output, i, x, generator=torch.Generator().manual_seed(i)).prev_sample
        x0 = ours.predict_x0(x, eps, i)
        found = ours.ddpm_step(x, x0, i, (v + 1) / 2 if f is None else f, noise)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_edm_levels_are_even_in_the_seventh_root_of_sigma(betas: str) -> None:
    schedule = Schedule.edm(BETAS[betas](), 12, 10.0, 0.1)
    sigmas = np.array([schedule.sigma(i) for i in range(12)])
    expected = (0.1 ** (1 / 7) + np.arange(12) / 11 * (10 ** (1 / 7) - 0.1 ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigmas, expected, rtol=0.04)  # as near as the network's timesteps come
    assert schedule.abar_prev[0] == 1 and np.all(schedule.abar_prev[1:] == schedule.abar[:-1])
    single = Schedule.edm(BETAS[betas](), 1, 10.0, 0.1)
    assert single.sigma(0) == pytest.approx(10.0, rel=0.01) and single.abar_prev.tolist() == [1.0]
    assert Schedule.edm(BETAS[betas](), 3, 1e6, 0.1).timesteps[-1] == 999
