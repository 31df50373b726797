"""Passes of networks are counted as they happen."""

from __future__ import annotations

import pytest
import torch

from pag_inverse.experiments.counting import Passes, counted, counted_model
from pag_inverse.guidance import Guidance, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import LatentPrior, PixelPrior


def test_each_call_and_each_gradient_through_it_counts(pixel: PixelPrior) -> None:
    passes = Passes()
    prior = counted(pixel, passes)
    z = torch.zeros(1, 3, 32, 32, requires_grad=True)
    eps = prior.predict(z, 500).eps
    first = torch.autograd.grad(eps.sum(), z, retain_graph=True)
    torch.autograd.grad((eps**2).sum(), z)
    with torch.no_grad():
        prior.predict(z, 500)
    assert passes.counts == {"forward": 2, "backward": 2, "autoencoder_forward": 0, "autoencoder_backward": 0}
    assert torch.equal(prior.decode(z), z) and passes.total == 4  # a prior on pixels has no autoencoder
    expected = torch.autograd.grad(pixel.predict(z, 500).eps.sum(), z)
    torch.testing.assert_close(first, expected)
    assert passes.total == 4  # the prior itself is not counted


def test_the_autoencoder_is_counted_apart(latent: LatentPrior) -> None:
    passes = Passes()
    prior = counted(latent, passes)
    z = torch.zeros(1, 4, 16, 16, requires_grad=True)
    x = prior.decode(z)
    prior.encode(x).sum().backward()
    assert passes.counts == {"forward": 0, "backward": 0, "autoencoder_forward": 2, "autoencoder_backward": 2}


@pytest.mark.parametrize(
    ("guidance", "at_100", "at_900"),
    [
        (NoGuidance(), 1, 1),
        (PerturbedAttentionGuidance(1.0, ["mid_block.attentions.0"]), 2, 2),
        (PerturbedAttentionGuidance(1.0, ["mid_block.attentions.0"], interval=(0.6, 1.0)), 1, 2),
    ],
)
def test_the_perturbed_pass_counts_where_pag_acts(
    pixel: PixelPrior, guidance: Guidance, at_100: int, at_900: int
) -> None:
    passes = Passes()
    model = counted_model(pixel, guidance, passes)
    assert passes.total == 0
    for t, expected in ((100, at_100), (900, at_900)):
        passes.clear()
        with torch.no_grad():
            model(torch.zeros(1, 3, 32, 32), t)
        assert passes.counts["forward"] == passes.total == expected
