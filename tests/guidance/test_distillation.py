"""The guided score as a loss: its gradient is that of App. C.3, and on Gaussian priors its minimiser is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pag_inverse import LatentPrior, NoGuidance, PerturbedAttentionGuidance, PixelPrior
from pag_inverse.guidance import GuidedEps, ScoreDistillation

LAYERS = ["mid_block.attentions.0"]


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noisy(distillation: ScoreDistillation, z: Tensor, step: int, name: str) -> tuple[Tensor, int, Tensor, float]:
    """z_t, t, eps and abar of a step, from the drawn numbers."""
    t, eps = distillation.drawn(step, name, tuple(z.shape))
    abar = float(torch.cumprod(1 - torch.as_tensor(distillation.model.prior.betas), 0)[t])
    return abar**0.5 * z + (1 - abar) ** 0.5 * eps, t, eps, abar


@pytest.mark.parametrize(("weighting", "weight"), [("variance", lambda abar: 1 - abar), ("uniform", lambda abar: 1.0)])
def test_the_gradient_is_the_guided_score_against_the_noise(pixel: PixelPrior, weighting: Any, weight: Any) -> None:
    distillation = ScoreDistillation(pixel, PerturbedAttentionGuidance(100.0, LAYERS), weighting=weighting)
    x = uniform(2, 3, 16, 16).requires_grad_()
    (found,) = torch.autograd.grad(distillation(x, step=3), x)
    for b in range(2):
        z_t, t, eps, abar = noisy(distillation, x[b : b + 1].detach(), 3, str(b))
        guided = PerturbedAttentionGuidance(100.0, LAYERS)(pixel, z_t, t).guided
        assert float((guided - NoGuidance()(pixel, z_t, t).guided).abs().max()) > 0.1  # PAG is in it
        expected = weight(abar) * (guided - eps) / 2
        torch.testing.assert_close(found[b : b + 1], expected, rtol=1e-3, atol=1e-4)


def test_with_a_prompt_it_is_eq_14(tiny_sd: LatentPrior) -> None:
    """eps(c) + s (eps(c) - eps_hat(c)) + w (eps(c) - eps(null)), in the states of a latent prior."""
    layer = tiny_sd.layers()[0].diffusers
    assert tiny_sd.empty is not None
    prompt = uniform(*tiny_sd.empty.shape)
    distillation = ScoreDistillation.of_paper(tiny_sd, [layer], prompt)
    z = uniform(1, 4, 16, 16).requires_grad_()
    (found,) = torch.autograd.grad(distillation(z, 0, latent=True), z)
    z_t, t, eps, abar = noisy(distillation, z.detach(), 0, "0")
    alone = PerturbedAttentionGuidance(1.0, [layer], condition=prompt)(tiny_sd, z_t, t)
    conditional = alone.unguided.detach()
    with torch.no_grad():
        null = tiny_sd.predict(z_t, t).eps
    guided = conditional + 100 * (alone.guided - conditional) + 99 * (conditional - null)
    torch.testing.assert_close(found, (1 - abar) * (guided - eps), rtol=1e-3, atol=2e-3)


def test_pictures_reach_a_latent_prior_through_its_encoder(latent: LatentPrior) -> None:
    distillation = ScoreDistillation(latent, NoGuidance())
    x = uniform(1, 3, 32, 32).requires_grad_()
    (found,) = torch.autograd.grad(distillation(x, 1), x)
    z = latent.encode(x)
    (expected,) = torch.autograd.grad(z, x, distillation.gradient(z, 1))
    torch.testing.assert_close(found, expected)
    assert float(found.abs().max()) > 0


class Against:
    """Eq. 10 with a second prior in the place of the perturbed network."""

    def __init__(self, worse: Any, s: float) -> None:
        self.worse, self.s = worse, s

    def __call__(self, prior: Any, z: Tensor, t: int) -> GuidedEps:
        eps, eps_hat = prior.predict(z, t).eps, self.worse.predict(z, t).eps
        return GuidedEps(eps + self.s * (eps - eps_hat), eps, None)


@pytest.mark.parametrize("s", [0.0, 1.0, 2.0])
def test_the_minimiser_on_a_gaussian_prior(s: float, gaussian: Callable[[float, float], Any]) -> None:
    """m + s (m - m'): the score of N(m, std^2) and that of N(m', std^2) differ by a constant at each t."""
    mean, worse = 0.3, 0.1
    distillation = ScoreDistillation(gaussian(mean, 0.5), Against(gaussian(worse, 0.5), s))
    parameter = torch.full((1, 3, 1, 2), -0.8, requires_grad=True)  # what is rendered: each image is twice as far
    optimiser = torch.optim.SGD([parameter], lr=0.5)
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step / 20))
    for step in range(1500):
        optimiser.zero_grad()
        distillation(2 * parameter, step).backward()
        optimiser.step()
        decay.step()
    expected = (mean + s * (mean - worse)) / 2
    assert float(parameter.detach().mean()) == pytest.approx(expected, abs=0.02)
    assert float((parameter.detach() - expected).abs().max()) < 0.06


def test_each_picture_has_its_own_draws(pixel: PixelPrior) -> None:
    distillation = ScoreDistillation(pixel, NoGuidance(), interval=(0.2, 0.4), seed=7)
    x = uniform(3, 3, 16, 16).requires_grad_()
    (together,) = torch.autograd.grad(distillation(x, 5, names=["a", "b", "c"]), x)
    for b, name in enumerate("abc"):
        (alone,) = torch.autograd.grad(distillation(x[b : b + 1], 5, names=[name]), x)
        torch.testing.assert_close(together[b] * 3, alone[b], rtol=0, atol=1e-5)
    ts = [distillation.drawn(step, "a", (1, 1))[0] for step in range(300)]
    assert 200 <= min(ts) < 210 and 390 < max(ts) <= 400
    assert distillation.drawn(5, "a", (1, 4))[1].tolist() != distillation.drawn(6, "a", (1, 4))[1].tolist()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"interval": (0.9, 0.1)}, "the lower number must come first"),
        ({"interval": (0.0, 2.0)}, "interval is 2"),
        ({"weighting": "sds"}, "weighting is 'sds'; it must be one of variance, uniform"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_is_refused(pixel: PixelPrior, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ScoreDistillation(pixel, NoGuidance(), **options)
    with pytest.raises(ValueError, match="1 images need as many names, not 2"):
        ScoreDistillation(pixel, NoGuidance())(uniform(1, 3, 16, 16), 0, names=["a", "b"])
