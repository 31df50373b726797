"""Networks in other number formats: what surrounds them stays float32, and results stay near float32's."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config as inductor_config
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from operators import GaussianBlur, GaussianNoise
from pag_inverse import DPS, PSLD, LatentPrior, PerturbedAttentionGuidance, PixelPrior, load_prior, solve
from pag_inverse.runtime.batching import TensorMemory
from pag_inverse.training import networks as architectures
from pag_inverse.priors.base import Prior
from pag_inverse.priors.activation_memory import LeanConv2d, LeanResnetBlock, keep_little
from pag_inverse.priors.precision import check_compiler, place, run_network, spare_memory
from pag_inverse.restoration.loop import RestorationResult
from pag_inverse.schedule import BETAS

HALVES = ("bfloat16", "float16")


def converted(prior: Prior, dtype: torch.dtype) -> Prior:
    other = copy.deepcopy(prior)
    for network in other.networks():
        place(network, "cpu", dtype)
    return other


def restore(prior: Prior, steps: int = 3) -> RestorationResult:
    latent = isinstance(prior, LatentPrior)
    side = 64 if latent else 32
    operator = GaussianBlur((3, side, side), 9, 1.5)
    y = operator.forward(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(2)) - 0.5)
    solver = PSLD(0.3, 0.03) if latent else DPS(0.5)
    guidance = PerturbedAttentionGuidance(1.0, [prior.layers()[0].diffusers])
    return solve(y, operator, prior, solver, guidance, noise=GaussianNoise(0.05), steps=steps, seeds=[0, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=HALVES)
@pytest.mark.parametrize("name", ["pixel", "adm_trained", "tiny_sd"])
def test_states_and_losses_stay_float32(name: str, dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    prior = request.getfixturevalue(name)
    expected, found = restore(prior), restore(converted(prior, dtype))
    assert found.x.dtype == found.z.dtype == found.residuals.dtype == torch.float32
    assert not torch.equal(found.x, expected.x)
    # eps of 1% error moves x0 by more where little of it is left in x_t: the residual is the steadier measure.
    torch.testing.assert_close(found.residuals[:, -1], expected.residuals[:, -1], rtol=0.05, atol=0)


@pytest.fixture(scope="module")
def latent() -> Prior:
    return load_prior("latent")


@pytest.mark.parametrize(
    ("name", "dtype", "error"),
    [
        ("pixel", torch.bfloat16, 0.03),
        ("pixel", torch.float16, 0.005),
        ("adm_trained", torch.bfloat16, 0.03),
        ("adm_trained", torch.float16, 0.005),
        ("latent", torch.bfloat16, 0.03),
    ],
)
def test_predictions_and_gradients_are_near_those_of_float32(
    name: str, dtype: torch.dtype, error: float, request: pytest.FixtureRequest
) -> None:
    prior: PixelPrior | LatentPrior = request.getfixturevalue(name)
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, prior.unet.config.in_channels, 16, 16, generator=g)
    direction = 1e-8 * torch.randn(z.shape, generator=g)  # float16 tells nothing below 6e-8 from 0

    def parts(prior: Prior) -> list[Tensor]:
        leaf = z.clone().requires_grad_(True)
        eps = prior.predict(leaf, 500).eps
        (grad,) = torch.autograd.grad((eps * direction).sum(), leaf)
        return [eps.detach(), grad, prior.predict_perturbed(leaf, 500, [prior.layers()[0].diffusers])]

    for ours, theirs in zip(parts(converted(prior, dtype)), parts(prior), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < error * theirs.norm()


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1.0, 1e30])
def test_a_float16_gradient_of_any_size_survives(size: float) -> None:
    """Of a linear network the gradient is known; each image has its own scale."""
    weight = torch.tensor([[0.5, -2.0], [3.0, 0.25]])
    x = torch.ones(2, 2, requires_grad=True)
    y = run_network(lambda h: h @ weight.to(h.dtype), x, torch.float16)
    direction = torch.tensor([[size, 2 * size], [1.0, 0.0]])
    (grad,) = torch.autograd.grad(y, x, direction)
    torch.testing.assert_close(grad, direction @ weight.T, rtol=2e-3, atol=0)


def test_a_precision_that_is_none() -> None:
    with pytest.raises(ValueError, match="float32, bfloat16, float16"):
        load_prior("pixel", precision="half")


def test_loaded_in_bfloat16(tmp_path: Path) -> None:
    prior = load_prior("latent", precision="bfloat16")
    assert all(p.dtype == torch.bfloat16 for network in prior.networks() for p in network.parameters())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        decoded = prior.decode(prior.encode(x))
        expected = load_prior("latent").decode(load_prior("latent").encode(x))
    assert decoded.dtype == torch.float32
    assert (decoded - expected).abs().mean() < 0.02


def outcome(prior: Prior, steps: int = 1) -> list[Tensor]:
    """eps, eps-hat, and the gradient through everything that a solver differentiates."""
    latent = isinstance(prior, LatentPrior)
    z = torch.randn(2, prior.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    layers = [prior.layers()[1].diffusers]
    for _ in range(steps):
        leaf = z.clone().requires_grad_(True)
        prior.prepare(layers)
        eps = prior.predict(leaf, 500).eps
        eps_hat = prior.predict_perturbed(leaf, 500, layers)
        end = prior.encode(prior.decode(eps)) if latent else eps
        (grad,) = torch.autograd.grad(end.square().mean(), leaf)
    return [eps.detach(), eps_hat, grad]


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
        outcome(prior)  # what is made once
        saved: dict[int, int] = {}

        def count(x: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved[x.data_ptr()] = x.untyped_storage().nbytes()
            return x

        with TensorMemory() as memory:
            outcome(prior)
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


def test_compiled_networks_share_their_prefix_too(pixel: PixelPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by torch.compile but run operation by operation, which needs no compiler."""
    expected = outcome(pixel)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    other = PixelPrior(copy.deepcopy(pixel.unet), pixel.betas)
    other.compiled = True
    other.predict(torch.zeros(2, 3, 16, 16), 0)  # compiled before it is known which layers are perturbed
    same(outcome(other, steps=2), expected)
    layers = (other.layers()[1].diffusers,)
    z = torch.zeros(2, 3, 16, 16)
    other.predict(z, 0)
    assert other._twins[layers][1].recorded  # the compiled pass has recorded what the other one needs
    with TensorMemory():  # does not fail, where the batch size is looked for
        other.predict(z, 0)


def test_no_compiler_is_one_clear_error() -> None:
    torch.compiler.reset()
    with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(ValueError, match=r"C\+\+ compiler"):
        check_compiler("cpu")


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_lean_blocks_are_diffusers_own_with_less_kept(name: str) -> None:
    """Bit for bit the same predictions and gradient; a third less at the peak, at least."""
    lean, peaks, ends = load_prior(name), [], []
    plain = copy.deepcopy(lean)
    for network in plain.networks():
        for block in network.modules():
            if isinstance(block, LeanResnetBlock):
                block.__class__ = ResnetBlock2D
            elif isinstance(block, LeanConv2d):
                block.__class__ = nn.Conv2d
    for prior in (plain, lean):
        outcome(prior)  # what is made once
        with TensorMemory() as memory:
            ends.append(outcome(prior))
        peaks.append(memory.peak)
    for ours, theirs in zip(*ends, strict=True):
        assert torch.equal(ours, theirs)
    assert peaks[1] < 0.66 * peaks[0], peaks[1] / peaks[0]


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2, "bias": False}])
@pytest.mark.parametrize("kind", ["float32", "channels last", "autocast"])
def test_a_lean_convolution_is_torchs_own(settings: dict[str, Any], kind: str) -> None:
    """Bit for bit, whatever its settings and number format; and it keeps no input."""
    network = nn.Sequential(nn.Conv2d(4, 6, 3, **settings)).requires_grad_(False)
    x = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(1))
    if kind == "channels last":
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    ends: list[tuple[Tensor, Tensor]] = []
    for turn in range(2):
        seen: list[Tensor] = []
        if turn:
            keep_little(network)
        leaf = x.clone().requires_grad_(True)
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"),
            torch.autograd.graph.saved_tensors_hooks(lambda t, seen=seen: seen.append(t) or t, lambda t: t),
        ):
            output = network(leaf)
        ends.append((output, torch.autograd.grad(output.float().square().sum(), leaf)[0]))
    assert isinstance(network[0], LeanConv2d) and x.shape not in [t.shape for t in seen]
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*ends, strict=True))


def test_a_trained_block_is_diffusers_own(pixel: PixelPrior) -> None:
    """Its parameters get their gradients."""
    unet = copy.deepcopy(pixel.unet).requires_grad_(True)
    unet(torch.randn(1, 3, 16, 16, requires_grad=True), 5).sample.sum().backward()
    assert all(p.grad is not None for p in unet.parameters())


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
        layers = ["mid_block.attentions.0" + (".transformer_blocks.0.attn1" if name != "ffhq" else "")]
        prior.prepare(layers)
    for network in prior.networks():
        spare_memory(network)
    weights = sum(p.numel() * p.element_size() for network in prior.networks() for p in network.parameters())
    with TensorMemory() as memory:
        z0 = z - prior.predict(z, 500).eps
        prior.predict_perturbed(z, 500, layers)
        torch.autograd.grad(z0.sum() + prior.encode(prior.decode(z0)).sum(), z)
    assert 0.5 * weights < memory.peak < 0.9 * most * 2**30 - weights
