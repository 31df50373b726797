"""Blocks that keep little for the backward pass compute what torch's and diffusers' own do, twice derived too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from pag_inverse import LatentPrior, PerturbedAttentionGuidance, PixelPrior, Prior, load_prior
from pag_inverse.priors.activation_memory import LeanConv2d, LeanResnetBlock, keep_little, keep_little_anywhere
from pag_inverse.runtime.batching import TensorMemory


def outcome(prior: Prior, guidance: PerturbedAttentionGuidance) -> list[Tensor]:
    """The unguided and the guided eps, and the gradient through everything that a solver differentiates."""
    z = torch.randn(2, prior.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    leaf = z.clone().requires_grad_(True)
    eps = guidance(prior, leaf, 500)
    end = prior.encode(prior.decode(eps.unguided)) if isinstance(prior, LatentPrior) else eps.unguided
    (grad,) = torch.autograd.grad(end.square().mean(), leaf)
    return [eps.unguided.detach(), eps.guided, grad]


def fat(prior: Prior) -> Prior:
    """The prior with torch's and diffusers' own blocks."""
    plain = copy.deepcopy(prior)
    for network in plain.networks():
        for block in network.modules():
            if isinstance(block, LeanResnetBlock):
                block.__class__ = ResnetBlock2D
            elif isinstance(block, LeanConv2d):
                block.__class__ = nn.Conv2d
    return plain


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_lean_blocks_are_diffusers_own_with_less_kept(name: str) -> None:
    """Bit for bit the same predictions and gradient; a third less at the peak, at least."""
    lean, peaks, ends = load_prior(name), [], []
    for prior in (fat(lean), lean):
        guidance = PerturbedAttentionGuidance(1.0, [prior.layers()[1].diffusers])
        outcome(prior, guidance)  # what is made once
        with TensorMemory() as memory:
            ends.append(outcome(prior, guidance))
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


BLOCKS: list[dict[str, Any]] = [
    {},
    {"up": True},
    {"down": True},
    {"out_channels": 6},
    {"time_embedding_norm": "scale_shift"},
    {"temb_channels": None},
    {"skip_time_act": True, "output_scale_factor": 1.7},
]


def pair(settings: dict[str, Any], dtype: torch.dtype) -> tuple[ResnetBlock2D, LeanResnetBlock, Tensor | None]:
    """A block of diffusers, the same as a lean one, and a time embedding."""
    torch.manual_seed(0)
    plain = ResnetBlock2D(in_channels=4, **{"temb_channels": 5, "groups": 2, **settings}).to(dtype).eval()
    lean = copy.deepcopy(plain.requires_grad_(False))
    keep_little(nn.Sequential(lean))
    assert type(lean) is LeanResnetBlock
    return plain, lean, None if settings.get("temb_channels", 5) is None else torch.randn(2, 5, dtype=dtype)


@pytest.mark.parametrize("settings", BLOCKS, ids=str)
def test_first_and_second_derivatives_of_a_block(settings: dict[str, Any]) -> None:
    """Against finite differences and against diffusers' own, float64."""
    plain, lean, temb = pair(settings, torch.float64)
    x = torch.randn(2, 4, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: lean(x.sin(), temb), (x,))
    assert torch.autograd.gradgradcheck(lambda x: lean(x.sin(), temb), (x,))

    def derived(block: nn.Module) -> tuple[Tensor, Tensor]:
        (first,) = torch.autograd.grad(block(x, temb).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3).sum(), x)
        return first, second

    for ours, theirs in zip(derived(lean), derived(plain), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2, "bias": False}])
def test_the_second_derivative_through_a_convolution(settings: dict[str, Any]) -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 3, **settings)).double().requires_grad_(False)
    keep_little(network)
    x = torch.randn(1, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: network(x**2).sin(), (x,))


def test_on_other_devices_the_blocks_are_plain_unless_memory_is_short() -> None:
    prior = load_prior("pixel", device="meta")
    leaf = torch.zeros(1, 3, 64, 64, device="meta", requires_grad=True)
    steps = functions_of(prior.predict(leaf, 500).eps)
    assert "ConvolutionBackward0" in steps and "_ConvBackward" not in steps
    keep_little_anywhere(prior.unet)
    assert "_ConvBackward" in functions_of(prior.predict(leaf, 500).eps)


def functions_of(output: Tensor) -> set[str]:
    """The names of the functions of a graph."""
    names, left = set(), [output.grad_fn]
    while left:
        step = left.pop()
        if step is not None and step not in names:
            names.add(step)
            left += [before for before, _ in step.next_functions]
    return {step.name() for step in names}


@pytest.mark.parametrize("name", ["adm", "latent"])
def test_a_hessian_product_through_a_whole_prior(name: str, request: pytest.FixtureRequest) -> None:
    """The derivative of <d eps / d z, v> along w, in float64, as with diffusers' own blocks."""
    prior = copy.deepcopy(request.getfixturevalue(name))
    for network in prior.networks():
        network.double()
    g = torch.Generator().manual_seed(0)
    shape = (1, prior.unet.config.in_channels, 16, 16)
    z, v, w = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(3))

    def product(prior: Prior) -> Tensor:
        leaf = z.clone().requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):  # the one of torch's attentions that can be derived twice
            eps = prior.predict(leaf, 500).eps
        (first,) = torch.autograd.grad((eps * v).sum(), leaf, create_graph=True)
        return torch.autograd.grad((first * w).sum(), leaf)[0]

    found, expected = product(prior), product(fat(prior))
    assert expected.abs().max() > 1e-6
    assert (found - expected).norm() < 1e-8 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_block_under_autocast(dtype: torch.dtype) -> None:
    """The backward pass runs outside of autocast, and computes again under it."""
    plain, lean, temb = pair({"time_embedding_norm": "scale_shift"}, torch.float32)
    x, ends = torch.randn(2, 4, 4, 6).to(dtype), []
    for block in (lean, plain):
        leaf = x.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            output = block(leaf, temb)
        ends.append((output, torch.autograd.grad(output.float().square().sum(), leaf)[0]))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*ends, strict=True))


def test_a_block_without_gradients_under_checkpointing_and_compiled() -> None:
    plain, lean, temb = pair({}, torch.float32)
    x = torch.randn(2, 4, 4, 6)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(lean(x, temb), plain(x, temb))
    ends = []
    for run in (plain, lambda x, t: checkpoint(lean, x, t, use_reentrant=False), torch.compile(lean, backend="eager")):
        leaf = x.clone().requires_grad_(True)
        ends.append(torch.autograd.grad(run(leaf, temb).square().sum(), leaf)[0])
    assert torch.equal(ends[0], ends[1])
    torch.testing.assert_close(ends[2], ends[0], atol=1e-6, rtol=1e-5)


def test_a_trained_block_is_diffusers_own(pixel: PixelPrior) -> None:
    """Its parameters get their gradients, whichever of them are trained."""
    unet = copy.deepcopy(pixel.unet).requires_grad_(True)
    unet(torch.randn(1, 3, 16, 16, requires_grad=True), 5).sample.sum().backward()
    assert all(p.grad is not None for p in unet.parameters())


def test_a_block_of_which_only_the_time_projection_is_trained() -> None:
    _, lean, temb = pair({"time_embedding_norm": "scale_shift"}, torch.float32)
    lean.time_emb_proj.requires_grad_(True)
    lean(torch.randn(2, 4, 4, 6, requires_grad=True), temb).square().sum().backward()
    assert lean.time_emb_proj.weight.grad is not None and lean.time_emb_proj.weight.grad.abs().max() > 0
