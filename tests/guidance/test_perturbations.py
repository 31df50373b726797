"""Every perturbation: its equation on a written-out attention, its random numbers, and its way through a prior."""

from __future__ import annotations

import pytest
import torch

from pag_inverse import GuidedModel, PerturbedAttentionGuidance, Prior
from pag_inverse.guidance import PERTURBATIONS, make_perturbation
from pag_inverse.guidance.perturbation import PassContext, perturbed_twin
from pag_inverse.guidance.prefix import PassPairs

LAYERS = {"pixel": "up_blocks.0.attentions.1", "tiny_sd": "down_blocks.1.attentions.1.transformer_blocks.0.attn1"}


@pytest.mark.parametrize("prior", ["pixel", "tiny_sd"])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_an_image_of_a_batch_is_perturbed_as_alone(name: str, prior: str, request: pytest.FixtureRequest) -> None:
    """eps_hat differs from eps, and depends on the image and its seed alone."""
    network: Prior = request.getfixturevalue(prior)
    model = GuidedModel(network, PerturbedAttentionGuidance(1.0, [LAYERS[prior]], perturbation=name))
    z = torch.randn(2, network.unet.config.in_channels, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both = model.seeded([5, 6])(z, 500)
        alone, other = model.seeded([6])(z[1:], 500), model.seeded([7])(z[1:], 500)
    assert (both.guided - both.unguided).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(both.guided[1:], alone.guided, atol=2e-4, rtol=1e-3)
    assert torch.equal(other.guided, alone.guided) != PERTURBATIONS[name].random


@pytest.mark.parametrize("name", [name for name in PERTURBATIONS if name != "sag"])
@pytest.mark.parametrize("prior", ["pixel", "tiny_sd"])
def test_the_shared_prefix_changes_no_bit(name: str, prior: str, request: pytest.FixtureRequest) -> None:
    network: Prior = request.getfixturevalue(prior)
    perturbation, context = make_perturbation(name), PassContext()
    z = torch.randn(1, network.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    context.enter(z, 500, [3])
    whole = perturbed_twin(network.unet, [LAYERS[prior]], perturbation, context)
    with torch.no_grad():
        _, eps_hat = PassPairs(network, [LAYERS[prior]], perturbation)(network, z, 500, None, [3])
        assert torch.equal(eps_hat, network.predict(z, 500, network=whole).eps)
