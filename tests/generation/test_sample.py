"""The Python call: conditions reach the network, several prompts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pag_inverse import (
    GuidedModel,
    LatentPrior,
    NoGuidance,
    PerturbedAttentionGuidance,
    PixelPrior,
    SampleOutput,
    sample,
)
from pag_inverse.generation import DDIM, run_sampler
from pag_inverse.priors.checkpoints.text_encoder import TextEncoder
from pag_inverse.runtime.streams import stream_seed

LAYERS = ["middle_block.1"]
SD_LAYERS = ["mid_block.attentions.0.transformer_blocks.0.attn1"]


class Letters(TextEncoder):
    """A text encoder whose embedding is noise that the prompt seeds."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.where = shape, "letters"

    def held(self) -> TextEncoder:
        return self

    def __call__(self, prompt: str) -> torch.Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(len(prompt)))


@pytest.fixture(scope="module")
def prompted(tiny_sd: LatentPrior) -> LatentPrior:
    prior = LatentPrior(tiny_sd.unet, tiny_sd.vae, tiny_sd.betas, empty=tiny_sd.empty, image_size=64)
    assert prior.empty is not None
    prior.text = Letters(tuple(prior.empty.shape))
    return prior


def test_each_picture_has_its_prompt_under_both_guidances(prompted: LatentPrior) -> None:
    """Two prompts, one batch: each picture is what its prompt alone gives under Eq. 14."""
    made = sample(prompted, 1, prompts=["cat", "a dog"], s=1.5, cfg=2.0, layers=SD_LAYERS, sampler="ddim", steps=2)
    assert made.prompts == ("cat", "a dog") and made.labels == (None, None)
    for number, prompt in enumerate(made.prompts):
        condition = prompted.text(prompt)
        guidance = PerturbedAttentionGuidance(1.5, SD_LAYERS, cfg=2.0, condition=condition)
        seed = stream_seed(0, f"{number:05d}_0000", "sampling")
        alone = run_sampler(GuidedModel(prompted, guidance), DDIM(), (3, 64, 64), 2, [seed])
        torch.testing.assert_close(made.x[number], alone.x[0].clamp(-1, 1), atol=1e-3, rtol=1e-3)


def test_a_guidance_of_ones_own_gets_the_condition_and_stays_as_it_is(prompted: LatentPrior) -> None:
    guidance = NoGuidance()
    given = sample(prompted, 1, prompts="cat", guidance=guidance, sampler="ddim", steps=2)
    assert guidance.condition is None
    expected = sample(prompted, 1, prompts="cat", s=0.0, cfg=1.0, sampler="ddim", steps=2)
    assert torch.equal(given.x, expected.x)
    assert not torch.equal(given.x, sample(prompted, 1, s=0.0, sampler="ddim", steps=2).x)


def test_batches_change_nothing(pixel: PixelPrior) -> None:
    options: dict[str, Any] = {"s": 1.0, "layers": LAYERS, "size": 16, "steps": 3}
    whole, parts = (sample(pixel, 5, batch_size=size, **options) for size in (5, 2))
    torch.testing.assert_close(whole.x, parts.x, atol=1e-3, rtol=1e-3)
    assert whole.pictures.shape == (5, 16, 16, 3)
    torch.testing.assert_close(whole.x[:2], sample(pixel, 2, **options).x, atol=1e-3, rtol=1e-3)


def test_a_callback_ends_it(pixel: PixelPrior) -> None:
    made = sample(pixel, 4, size=16, steps=3, batch_size=2, callback=lambda done, steps, step: done == 2)
    assert made.stopped and len(made.x) == 2


def test_a_sample_that_leaves_the_finite_numbers_is_told_and_leaves_the_others_alone(pixel: PixelPrior) -> None:
    class Breaks(NoGuidance):
        def __call__(self, prior: Any, z: torch.Tensor, t: int) -> Any:
            found = super().__call__(prior, z, t)
            found.guided[1] = torch.nan
            return found

    options: dict[str, Any] = {"size": 16, "steps": 2, "sampler": "ddim"}
    made, whole = (sample(pixel, 3, guidance=guidance, **options) for guidance in (Breaks(), NoGuidance()))
    assert made.failed == {1: 1} and bool((made.x[1] == 0).all())
    torch.testing.assert_close(made.x[[0, 2]], whole.x[[0, 2]])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"count": 0}, "count is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"size": 17}, "multiples of 4"),
        ({"sampler": "euler"}, "sampler is 'euler'; it must be one of ddpm, ddim"),
        ({"cfg": 3.0}, "cfg is 3 but there are no prompts"),
        ({"s": 1.0}, "has no row with layers"),
        ({"s": 1.0, "layers": ["nothing"]}, "holds no self-attention"),
        ({"classes": [1]}, "not class-conditional"),
        ({"prompts": ["cat"]}, "takes no prompt"),
        ({"guidance": NoGuidance(), "s": 1.0}, "has its own s, layers and cfg"),
    ],
)
def test_what_is_refused(options: dict[str, Any], told: str, latent: LatentPrior) -> None:
    with pytest.raises(ValueError, match=told):
        sample(latent, **{"count": 1, "size": 16, "steps": 1, **options})


def test_the_embedded_prior_has_a_row() -> None:
    made = sample("pixel", 1, steps=2)
    assert isinstance(made, SampleOutput) and made.x.shape == (1, 3, 64, 64) and float(made.x.std()) > 0
