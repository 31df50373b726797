"""Perturbed self-attention: diffusers' own PAG processor, exact names, and gradients it must not touch."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, PAGIdentitySelfAttnProcessor2_0

from pag_inverse import LatentPrior, NoGuidance, PerturbedAttentionGuidance, PixelPrior, Prior
from pag_inverse.guidance.perturbation import IdentitySelfAttention, perturbed_twin
from pag_inverse.guidance.prefix import PassPairs, completed_before
from pag_inverse.schedule import BETAS

LAYER = "down_blocks.2.attentions.0"


@torch.no_grad()
def perturbed(prior: Prior, z: torch.Tensor, t: int, layers: list[str], condition: torch.Tensor | None = None):
    """eps-hat by the whole perturbed network."""
    return prior.predict(z, t, condition, network=perturbed_twin(prior.unet, layers)).eps


@pytest.mark.parametrize("spatial", [True, False])
def test_identity_is_diffusers_pag_processor(spatial: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(
        32,
        heads=2,
        dim_head=16,
        norm_num_groups=8 if spatial else None,
        residual_connection=spatial,
        rescale_output_factor=2.0,
        bias=True,
    )
    x = torch.randn(2, 32, 4, 6) if spatial else torch.randn(2, 24, 32)
    expected = PAGIdentitySelfAttnProcessor2_0()(attention, torch.cat([x, x])).chunk(2)[1]
    torch.testing.assert_close(IdentitySelfAttention()(attention, x), expected)


def test_recorded_stable_diffusion_outputs(tiny_sd: LatentPrior, recordings) -> None:
    recorded = recordings.load("psld_trajectory/unet_io.npz")
    twin = perturbed_twin(tiny_sd.unet, ["down_blocks.1.attentions.1.transformer_blocks.0.attn1"])
    with torch.no_grad():
        plain = tiny_sd.unet(recorded["x"], recorded["t"], encoder_hidden_states=recorded["context"]).sample
        perturbed = twin(recorded["x"], recorded["t"], encoder_hidden_states=recorded["context"]).sample
    assert (plain - recorded["out"]).abs().max() < 1e-4
    assert (perturbed - recorded["out_pag"]).abs().max() < 1e-4


def test_stable_diffusion_names_in_both_languages() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)  # the layout of SD 1.x
    twin = perturbed_twin(unet, ["input_blocks.8.1.transformer_blocks.0.attn1"])
    name = "down_blocks.2.attentions.1.transformer_blocks.0.attn1"
    changed = [n for n, p in twin.attn_processors.items() if isinstance(p, IdentitySelfAttention)]
    assert changed == [f"{name}.processor"]


@pytest.mark.parametrize(
    "name", ["input_blocks.9.1", "middle_block", "mid_block", "", "down_blocks.2.attentions", "attn1"]
)
def test_a_name_that_holds_no_self_attention(name: str, adm: PixelPrior) -> None:
    with pytest.raises(ValueError, match=r"input_blocks\.5\.1 \(= down_blocks\.2\.attentions\.0\)"):
        adm.resolve_layers([name])


def test_cross_attention_is_not_a_choice(tiny_sd: LatentPrior) -> None:
    assert all(layer.diffusers.endswith("attn1") for layer in tiny_sd.layers())
    with pytest.raises(ValueError, match="no self-attention"):
        tiny_sd.resolve_layers(["down_blocks.1.attentions.1.transformer_blocks.0.attn2"])


def test_twin_shares_every_parameter_and_buffer(adm: PixelPrior) -> None:
    twin = perturbed_twin(adm.unet, [LAYER])
    ours, theirs = dict(adm.unet.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)


def gradient(prior: PixelPrior, guidance: PerturbedAttentionGuidance | NoGuidance, z: torch.Tensor) -> torch.Tensor:
    """The gradient of the unguided eps, taken after the perturbed pass has run."""
    z = z.clone().requires_grad_(True)
    eps = guidance(prior, z, 500)
    (grad,) = torch.autograd.grad(eps.unguided.square().sum(), z)
    return grad


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_perturbed_pass_leaves_the_gradient_alone(checkpointing: bool, pixel: PixelPrior) -> None:
    """With checkpointing the backward pass runs the forward again: it must meet the plain attention then too."""
    prior = copy.deepcopy(pixel)
    unet = prior.unet
    z = torch.randn(1, 3, 16, 16)
    expected = gradient(prior, NoGuidance(), z)
    if checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()  # diffusers checkpoints in this mode
    layers = [layer.diffusers for layer in prior.layers()]
    guided = gradient(prior, PerturbedAttentionGuidance(2.0, layers), z)
    torch.testing.assert_close(guided, expected, atol=1e-5, rtol=1e-4)
    # What the test would see if a layer were still perturbed in that backward pass:
    wrong = gradient(PixelPrior(perturbed_twin(unet, layers), BETAS["linear"]()), NoGuidance(), z)
    assert (wrong - expected).norm() / expected.norm() > 1e-3


def test_the_perturbed_pass_has_no_graph_and_changes_eps(adm: PixelPrior) -> None:
    z = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    eps = PerturbedAttentionGuidance(1.5, [LAYER])(adm, z, 500)
    eps_hat = perturbed(adm, z, 500, [LAYER])
    assert not eps.guided.requires_grad and not eps_hat.requires_grad and eps.unguided.requires_grad
    plain = eps.unguided.detach()
    torch.testing.assert_close(eps.guided, plain + 1.5 * (plain - eps_hat))  # Eq. 10
    assert (eps.guided - plain).abs().max() > 1e-3


def test_classifier_free_guidance_beside_pag(tiny_sd: LatentPrior, recordings) -> None:
    """eps(null) + cfg (eps(c) - eps(null)) + s (eps(c) - eps_hat(c)), Eq. 14 with w = cfg - 1."""
    context = recordings.load("psld_trajectory/common.npz")["uncond_context"]
    layer = tiny_sd.layers()[0].diffusers
    z = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        eps = PerturbedAttentionGuidance(4.0, [layer], cfg=7.5, condition=context)(tiny_sd, z, 300)
        null, conditional = tiny_sd.predict(z, 300).eps, tiny_sd.predict(z, 300, context).eps
        eps_hat = perturbed(tiny_sd, z, 300, [layer], context)
    torch.testing.assert_close(eps.unguided, conditional)
    torch.testing.assert_close(
        eps.guided,
        conditional + 6.5 * (conditional - null) + 4.0 * (conditional - eps_hat),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize(("s", "cfg"), [(-1.0, 1.0), (float("nan"), 1.0), (1.0, 2.0)])
def test_guidance_that_cannot_be(s: float, cfg: float) -> None:
    with pytest.raises(ValueError, match=r"(s|cfg) is"):
        PerturbedAttentionGuidance(s, [LAYER], cfg=cfg)


EVERY_LAYER = {
    "adm": ["down_blocks.2.attentions.0", "mid_block.attentions.0", "up_blocks.0.attentions.1"],
    "tiny_sd": [
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1",
        "down_blocks.1.attentions.1.transformer_blocks.0.attn1",
        "mid_block.attentions.0.transformer_blocks.0.attn1",
        "up_blocks.1.attentions.1.transformer_blocks.0.attn1",  # behind a whole block whose attributes diffusers reads
    ],
}


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name, layers in EVERY_LAYER.items() for layer in layers])
def test_the_shared_prefix_changes_no_bit(name: str, layer: str, request: pytest.FixtureRequest) -> None:
    """The perturbed pass starts at its first perturbed layer, and gives what the whole pass gives."""
    prior = request.getfixturevalue(name)
    z = torch.randn(2, prior.unet.config.in_channels, 32, 32, generator=torch.Generator().manual_seed(0))
    pairs = PassPairs(prior, [layer])
    for t in (500, 20):
        prediction, eps_hat = pairs(prior, z.clone().requires_grad_(True), t, None)
        assert torch.equal(eps_hat, perturbed(prior, z, t, [layer]))
        assert torch.equal(prediction.eps, prior.predict(z, t).eps) and prediction.eps.requires_grad
    (pair,) = pairs._idle
    assert not pair._recorded  # nothing is held on to


def test_the_shared_part_runs_once(adm: PixelPrior) -> None:
    """conv_in of two passes is called once, in the plain one."""
    pairs, called = PassPairs(adm, ["middle_block.1"]), []
    z = torch.randn(1, 3, 32, 32)
    pairs(adm, z, 500, None)
    (pair,) = pairs._idle
    pair.plain.conv_in.register_forward_hook(lambda *_: called.append("plain"))
    pair.perturbed.conv_in.register_forward_hook(lambda *_: called.append("perturbed: a stub"))
    pairs(adm, z, 500, None)
    assert called == ["plain", "perturbed: a stub"]
    assert not list(pair.perturbed.conv_in.parameters())


def test_what_comes_before_a_layer(tiny_sd: LatentPrior) -> None:
    """The whole blocks before it, and inside its own block what it has passed."""
    layer = "down_blocks.1.attentions.1.transformer_blocks.0.attn1"
    found = completed_before(tiny_sd, [layer])
    assert {"conv_in", "time_embedding", "down_blocks.0", "down_blocks.1.attentions.0"} <= set(found)
    assert "down_blocks.1.attentions.1.transformer_blocks.0.norm1" in found
    assert not any(name.startswith(("mid_block", "up_blocks", "down_blocks.2")) for name in found)
