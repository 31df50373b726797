"""Algorithm 1 against closed forms and against diffusers' schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from pag_inverse import GuidedModel, NoGuidance, PerturbedAttentionGuidance, PixelPrior
from pag_inverse.experiments.analytic_priors import GaussianMixture, MixturePrior
from pag_inverse.generation import DDIM, DDPM, Sampler, run_sampler
from pag_inverse.generation.two_models import TwoModelGuidance
from pag_inverse.priors import Prior
from pag_inverse.runtime.streams import batch_draw, recorded_draw
from pag_inverse.schedule import BETAS, strided_timesteps

SHAPE = (3, 16, 16)
LAYERS = ["mid_block.attentions.0"]


@pytest.fixture(scope="module")
def dependent() -> GaussianMixture:
    """N(m, C) of three values of a pixel."""
    mean = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64)
    covariance = torch.tensor([[0.3, 0.15, 0.0], [0.15, 0.2, 0.0], [0.0, 0.0, 0.25]], dtype=torch.float64)
    return GaussianMixture(torch.ones(1, dtype=torch.float64), mean, covariance[None])


def sampled(mixture: GaussianMixture, sampler: Sampler, count: int, draw: Any) -> torch.Tensor:
    prior = MixturePrior(mixture, (3, 1, 1), BETAS["linear"]())
    found = run_sampler(GuidedModel(prior, NoGuidance()), sampler, (3, 1, 1), 1000, range(count), draw=draw)
    return found.x.flatten(1).double()


def test_ddpm_samples_of_a_gaussian_have_its_mean_and_covariance(dependent: GaussianMixture) -> None:
    """20000 samples, 2 % of the largest variance."""
    generator = torch.Generator().manual_seed(0)
    x = sampled(dependent, DDPM(clip=False), 20000, lambda shape: torch.randn(shape, generator=generator))
    assert (x.mean(dim=0) - dependent.mean).abs().max() < 0.02 * 0.3**0.5
    assert (torch.cov(x.T) - dependent.covariance).abs().max() < 0.02 * 0.3


def test_ddim_samples_of_a_gaussian_have_its_mean_and_covariance(dependent: GaussianMixture) -> None:
    """DDIM is an affine map x = M z + b of a Gaussian prior's noise, so that four noises give both exactly."""
    noises = torch.cat([torch.zeros(1, 3), torch.eye(3)]).view(4, 3, 1, 1)
    b, *columns = sampled(dependent, DDIM(clip=False), 4, lambda _: noises)
    matrix = torch.stack(columns, dim=1) - b[:, None]
    assert (b - dependent.mean).abs().max() < 0.02 * 0.3**0.5
    assert (matrix @ matrix.T - dependent.covariance).abs().max() < 0.02 * 0.3


def chain_of_diffusers(scheduler: Any, prior: Prior, z: torch.Tensor, timesteps: Any, **options: Any) -> torch.Tensor:
    """diffusers' own loop over an unguided prior."""
    for t in timesteps:
        with torch.no_grad():
            eps = prior.predict(z, int(t)).eps
        z = scheduler.step(eps, int(t), z, **options).prev_sample
    return z


def test_ddim_of_pixels_is_diffusers_with_adms_timesteps(pixel: PixelPrior) -> None:
    scheduler = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=True, set_alpha_to_one=True, steps_offset=0)
    scheduler.set_timesteps(10)
    assert [int(t) for t in scheduler.timesteps] == strided_timesteps(10)[::-1]
    found = run_sampler(GuidedModel(pixel, NoGuidance()), DDIM(), SHAPE, 10, [4, 5])
    z = batch_draw([4, 5])((2, *SHAPE))
    expected = chain_of_diffusers(scheduler, pixel, z, scheduler.timesteps, use_clipped_model_output=True)
    torch.testing.assert_close(found.x, expected, atol=1e-4, rtol=1e-4)


def test_ddim_of_latents_is_diffusers_with_the_settings_of_stable_diffusion(latent: Any) -> None:
    scheduler = DDIMScheduler(
        1000, 0.00085, 0.012, "scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    scheduler.set_timesteps(5)
    found = run_sampler(GuidedModel(latent, NoGuidance()), DDIM(), SHAPE, 5, [4])
    z = batch_draw([4])((1, *latent.state_shape(SHAPE)))
    expected = latent.decode(chain_of_diffusers(scheduler, latent, z, scheduler.timesteps))
    torch.testing.assert_close(found.x, expected, atol=1e-3, rtol=1e-3)


def test_ddpm_with_a_learned_variance_is_diffusers(adm: PixelPrior) -> None:
    scheduler = DDPMScheduler(1000, 1e-4, 0.02, "linear", variance_type="learned_range", clip_sample=True)
    scheduler.set_timesteps(timesteps=[999, 666, 333, 0])
    generator = torch.Generator().manual_seed(0)
    start, *noises = (torch.randn((1, 3, 32, 32), generator=generator) for _ in range(4))
    found = run_sampler(
        GuidedModel(adm, NoGuidance()), DDPM(), (3, 32, 32), 4, [0], draw=recorded_draw([start, *noises])
    )
    z, generator = start, torch.Generator().manual_seed(0)
    torch.randn((1, 3, 32, 32), generator=generator)
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = adm.unet(z, t).sample
        z = scheduler.step(output, int(t), z, generator=generator).prev_sample
    torch.testing.assert_close(found.x, z, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("steps, first", [(25, 40), (250, 4), (30, 34)])
def test_adms_strides(steps: int, first: int) -> None:
    timesteps = strided_timesteps(steps)
    assert len(timesteps) == steps and timesteps[:2] == [0, first]
    assert len(strided_timesteps(999)) == 999 and strided_timesteps(999)[-1] == 999


@pytest.mark.parametrize("sampler", [DDPM(), DDIM()])
def test_a_scale_of_zero_is_no_guidance_bit_for_bit(sampler: Sampler, pixel: PixelPrior) -> None:
    guidances = (NoGuidance(), PerturbedAttentionGuidance(0.0, LAYERS), PerturbedAttentionGuidance(2.0, LAYERS))
    plain, none, guided = (run_sampler(GuidedModel(pixel, g), sampler, SHAPE, 4, [1]).x for g in guidances)
    assert torch.equal(plain, none) and (guided - plain).abs().max() > 1e-3


def test_a_sample_does_not_depend_on_its_batch(pixel: PixelPrior) -> None:
    model = GuidedModel(pixel, PerturbedAttentionGuidance(2.0, LAYERS))
    whole = run_sampler(model, DDPM(), SHAPE, 4, [7, 8, 9]).x
    other = run_sampler(model, DDPM(), SHAPE, 4, [9, 7]).x
    torch.testing.assert_close(whole[[2, 0]], other, atol=1e-4, rtol=1e-4)


def test_a_callback_sees_the_steps_and_stops_them(pixel: PixelPrior) -> None:
    seen: list[Any] = []

    def stop(done: int, steps: int, step: Any) -> bool:
        seen.append((done, steps, step.x0))
        return done == 2

    found = run_sampler(GuidedModel(pixel, NoGuidance()), DDIM(), SHAPE, 4, [1], callback=stop)
    assert found.stopped and [told[:2] for told in seen] == [(1, 4), (2, 4)]
    assert torch.equal(found.x, seen[-1][2])


def test_guidance_by_two_models_is_that_of_equation_14(pixel: PixelPrior, gaussian: Any) -> None:
    other = gaussian(0.2, 0.5)
    z = torch.randn(1, *SHAPE)
    inner = PerturbedAttentionGuidance(1.5, LAYERS)
    found = TwoModelGuidance(inner, other, 3.0)(pixel, z, 300)
    eps, null = pixel.predict(z, 300).eps, other.predict(z, 300).eps
    perturbed = inner(pixel, z, 300).guided - eps
    torch.testing.assert_close(found.guided, eps + perturbed + 2.0 * (eps - null))
    assert torch.equal(found.unguided, eps)
