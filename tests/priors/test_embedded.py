"""The priors that come with the package: small enough, and worth something on photographs they never saw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators import GaussianNoise, make_operator
from pag_inverse import DPS, PerturbedAttentionGuidance, load_prior, load_task, restore, solve
from pag_inverse.data.images import bundled_photograph, prepare
from pag_inverse.runtime.streams import batch_draw, operator_rng
from pag_inverse.solvers.step_sizes import settle

NAMES = ("pixel", "latent")


def photographs(size: int) -> Tensor:
    names = ("astronaut", "chelsea", "rocket")
    return torch.stack([torch.from_numpy(prepare(bundled_photograph(name), size)) for name in names])


def psnr(x: Tensor, truth: Tensor) -> float:
    mse = (x.clamp(-1, 1) - truth).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / mse)).mean())


@pytest.mark.parametrize("name", NAMES)
def test_each_network_is_small_and_has_a_card(name: str) -> None:
    prior = load_prior(name)
    assert all(sum(p.numel() for p in network.parameters()) <= 7e6 for network in prior.networks())
    folder = prior.source
    assert folder is not None and folder.parts[-2:] == ("embedded", name)
    assert all(file.stat().st_size <= 15e6 for file in folder.rglob("*.safetensors"))
    assert "research" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("t", "noisy"), [(100, 16.0), (300, 7.0)])
def test_the_pixel_prior_denoises(t: int, noisy: float) -> None:
    """One step from x_t to x0, against x_t / sqrt(abar) itself: at least 6 dB better."""
    prior = load_prior("pixel")
    x = photographs(128)
    schedule = DPS(eta=1.0).schedule(prior, 1000)
    abar = float(schedule.abar[t])
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x_t = abar**0.5 * x + (1 - abar) ** 0.5 * eps
    with torch.no_grad():
        x0 = schedule.predict_x0(x_t, prior.predict(x_t, t).eps, t)
    assert psnr(x_t / abar**0.5, x) < noisy + 6
    assert psnr(x0, x) > psnr(x_t / abar**0.5, x) + 6


def test_the_autoencoder_keeps_photographs() -> None:
    prior = load_prior("latent")
    x = photographs(256)
    with torch.no_grad():
        assert psnr(prior.decode(prior.encode(x)), x) > 30


@pytest.mark.parametrize("name", NAMES)
def test_motion_is_undone(name: str) -> None:
    """A sample is nearer to the truth than the measurement: 64 px, the row with PAG."""
    x, solver = photographs(64)[:2], {"pixel": "dps", "latent": "psld"}[name]
    output = restore(x, task="motion_deblur", prior=load_prior(name), solver=solver, seed=1)
    assert psnr(output.x[:, 0], x) > psnr(output.problem.y, x) + 1


def test_a_batch_in_float64_is_its_images_one_by_one() -> None:
    """Two steps from pure noise, where a rounding of float32 in eps can push an x0 across the clamp."""
    prior = load_prior("pixel")
    prior.unet.double()
    task = load_task("box_inpainting", "natural", "dps", image_size=64, pag=True)
    row = task.hyperparameters
    assert row is not None
    solver = settle("dps", row, prior, side=64).solver
    guidance = PerturbedAttentionGuidance(row.s, row.layers)
    x, noise = photographs(64).double(), GaussianNoise(0.05)

    def restored(which: list[int]) -> Tensor:
        rngs = [operator_rng(0, str(i)) for i in which]
        operator = make_operator("box_inpainting", (3, 64, 64), task.operator.settings, rngs).to("cpu", torch.float64)
        draws = [batch_draw([seed + i for i in which]) for seed in (10, 20)]
        y = noise(operator.forward(x[which]), lambda shape: draws[0](shape).double())
        draw = lambda shape: draws[1](shape).double()  # noqa: E731
        return solve(y, operator, prior, solver, guidance, noise=noise, steps=2, seeds=which, draw=draw).x

    singles = torch.cat([restored([i]) for i in range(2)])
    torch.testing.assert_close(restored([0, 1]), singles, atol=1e-9, rtol=0)
