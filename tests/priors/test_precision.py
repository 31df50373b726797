"""Options of how networks run: what surrounds them stays float32, and results stay near float32's."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch._inductor.config as inductor_config
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from operators import GaussianBlur, GaussianNoise
from pag_inverse import DPS, PSLD, ChainResult, LatentPrior, PerturbedAttentionGuidance, PixelPrior, load_prior, solve
from pag_inverse.benchmark import architectures
from pag_inverse.priors.base import Prior
from pag_inverse.priors.precision import check_compiler, place, spare_memory
from pag_inverse.runtime.batching import TensorMemory
from pag_inverse.schedule import BETAS

HALVES = ("bfloat16", "float16")


def converted(prior: Prior, dtype: torch.dtype) -> Prior:
    other = copy.deepcopy(prior)
    for network in other.networks():
        place(network, "cpu", dtype)
    return other


def guidance_at(prior: Prior, layer: int) -> PerturbedAttentionGuidance:
    return PerturbedAttentionGuidance(1.0, [prior.layers()[layer].diffusers])


def restore(prior: Prior, steps: int = 6) -> ChainResult:
    latent = isinstance(prior, LatentPrior)
    side = 64 if latent else 32
    operator = GaussianBlur((3, side, side), 9, 1.5)
    y = operator.forward(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(2)) - 0.5)
    solver = PSLD(eta=0.3, gamma=0.03) if latent else DPS(eta=0.5)
    return solve(
        y, operator, prior, solver, guidance_at(prior, 0), noise=GaussianNoise(0.05), steps=steps, seeds=[0, 1]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=HALVES)
@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_states_and_losses_stay_float32(name: str, dtype: torch.dtype) -> None:
    prior = load_prior(name)
    expected, found = restore(prior), restore(converted(prior, dtype))
    assert found.x.dtype == found.z.dtype == found.residuals.dtype == torch.float32
    assert not torch.equal(found.x, expected.x)
    # eps of 1% error moves x0 by more where little of it is left in x_t: the residuals are the steadier measure.
    torch.testing.assert_close(found.residuals.mean(dim=1), expected.residuals.mean(dim=1), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("name", "dtype", "error"),
    [("pixel", torch.bfloat16, 0.03), ("pixel", torch.float16, 0.005), ("latent", torch.bfloat16, 0.03)],
)
def test_predictions_and_gradients_are_near_those_of_float32(name: str, dtype: torch.dtype, error: float) -> None:
    prior = load_prior(name)
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, prior.unet.config.in_channels, 16, 16, generator=g)
    direction = 1e-8 * torch.randn(z.shape, generator=g)  # float16 tells nothing below 6e-8 from 0

    def parts(prior: Prior) -> list[Tensor]:
        leaf = z.clone().requires_grad_(True)
        eps = guidance_at(prior, 0)(prior, leaf, 500)
        (grad,) = torch.autograd.grad((eps.unguided * direction).sum(), leaf)
        return [eps.unguided.detach(), grad, eps.guided]

    for ours, theirs in zip(parts(converted(prior, dtype)), parts(prior), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < error * theirs.norm()


def test_a_precision_that_is_none() -> None:
    with pytest.raises(ValueError, match="float32, bfloat16, float16"):
        load_prior("pixel", precision="half")


def test_loaded_in_bfloat16() -> None:
    prior = load_prior("latent", precision="bfloat16")
    assert all(p.dtype == torch.bfloat16 for network in prior.networks() for p in network.parameters())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        decoded = prior.decode(prior.encode(x))
        expected = load_prior("latent").decode(load_prior("latent").encode(x))
    assert decoded.dtype == torch.float32
    assert (decoded - expected).abs().mean() < 0.02


def outcome(prior: Prior, guidance: PerturbedAttentionGuidance | None = None) -> list[Tensor]:
    """The unguided and the guided eps, and the gradient through everything that a solver differentiates."""
    latent = isinstance(prior, LatentPrior)
    z = torch.randn(2, prior.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    leaf = z.clone().requires_grad_(True)
    eps = (guidance or guidance_at(prior, 1))(prior, leaf, 500)
    end = prior.encode(prior.decode(eps.unguided)) if latent else eps.unguided
    (grad,) = torch.autograd.grad(end.square().mean(), leaf)
    return [eps.unguided.detach(), eps.guided, grad]


def same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("name", ["pixel", "latent"])
@pytest.mark.parametrize("option", ["channels_last", "low_memory"])
def test_an_option_changes_no_result(option: str, name: str) -> None:
    prior = load_prior(name, channels_last=option == "channels_last", low_memory=option == "low_memory")
    same(outcome(prior), outcome(load_prior(name)))


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_low_memory_holds_less(name: str) -> None:
    """What a step holds at its peak, and what its forward pass keeps for the backward pass."""
    peaks, kept = [], []
    for low in (False, True):
        prior = load_prior(name, low_memory=low)
        guidance = guidance_at(prior, 1)
        outcome(prior, guidance)  # what is made once
        saved: dict[int, int] = {}

        def count(x: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved[x.data_ptr()] = x.untyped_storage().nbytes()
            return x

        with TensorMemory() as memory:
            outcome(prior, guidance)
        z = torch.randn(2, prior.unet.config.in_channels, 16, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            end = prior.encode(prior.decode(prior.predict(z, 500).eps))
        del end  # until here its graph, and so every address, was its own
        weights = {p.data_ptr() for network in prior.networks() for p in network.parameters()}
        peaks.append(memory.peak)
        kept.append(sum(size for place, size in saved.items() if place not in weights))
    assert peaks[1] < 0.85 * peaks[0] and kept[1] < 0.75 * kept[0], (peaks, kept)


def test_every_attention_is_scaled_dot_product_attention() -> None:
    """Of the published architectures' blocks and the embedded priors' alike."""
    priors = [load_prior("pixel"), load_prior("latent")]
    with torch.device("meta"):
        networks = [n for prior in priors for n in prior.networks()] + [UNet2DConditionModel(), AutoencoderKL()]
    found = {type(m.processor) for n in networks for m in n.modules() if isinstance(m, Attention)}
    assert found == {AttnProcessor2_0}


def test_compiled_networks_give_the_same(pixel: PixelPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by torch.compile but run operation by operation, which needs no compiler."""
    expected = outcome(pixel)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    other = PixelPrior(pixel.unet, pixel.betas)
    other.compiled = True
    guidance = guidance_at(other, 1)
    same(outcome(other, guidance), expected)
    same(outcome(other, guidance), expected)
    with TensorMemory():  # does not fail, where the batch size is looked for
        other.predict(torch.zeros(2, 3, 16, 16), 0)


def test_no_compiler_is_one_clear_error() -> None:
    torch.compiler.reset()
    with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(ValueError, match=r"C\+\+ compiler"):
        check_compiler("cpu")


@pytest.mark.parametrize(("name", "most"), [("stable diffusion", 12), ("ffhq", 6)])
def test_low_memory_fits_the_published_architectures_into_a_small_gpu(name: str, most: int) -> None:
    """Float32 weights and the peak of a step's tensors at the published size, counted on tensors without numbers."""
    try:
        checkpoint(torch.sin, torch.zeros(1, device="meta", requires_grad=True), use_reentrant=False)
    except AttributeError:
        pytest.skip(f"torch {torch.__version__} cannot checkpoint tensors without numbers")
    with torch.device("meta"):
        if name == "ffhq":
            prior: Prior = PixelPrior(architectures.ffhq_adm(), BETAS["linear"]())
        else:
            unet, vae = architectures.stable_diffusion_unet(), architectures.stable_diffusion_vae()
            prior = LatentPrior(unet, vae, BETAS["scaled_linear"](), empty=torch.zeros(1, 77, 768))
        z = torch.zeros(1, *prior.state_shape((3, prior.image_size, prior.image_size)), requires_grad=True)
        layer = "mid_block.attentions.0" + (".transformer_blocks.0.attn1" if name != "ffhq" else "")
        guidance = PerturbedAttentionGuidance(1.0, [layer])
    for network in prior.networks():
        spare_memory(network)
    guidance(prior, z, 500)  # what is made once
    weights = sum(p.numel() * p.element_size() for network in prior.networks() for p in network.parameters())
    with TensorMemory() as memory:
        z0 = z - guidance(prior, z, 500).unguided
        torch.autograd.grad(z0.sum() + prior.encode(prior.decode(z0)).sum(), z)
    assert 0.5 * weights < memory.peak < 0.9 * most * 2**30 - weights
