"""A prior's view of the caller's network, and networks in other number formats than the state's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from diffusers import UNet2DModel
from torch import Tensor, nn

from pag_inverse import PixelPrior
from pag_inverse.priors.activation_memory import LeanConv2d
from pag_inverse.priors.networks import own_view, run_network
from pag_inverse.priors.precision import place
from pag_inverse.schedule import BETAS


@pytest.fixture
def network(pixel: PixelPrior) -> Any:
    """A network as a caller has it: being trained."""
    return UNet2DModel.from_config(pixel.unet.config).train()


def state_of(network: nn.Module) -> list[Any]:
    """All that a caller could notice of a change."""
    modules = [(type(m), m.training, len(m._forward_hooks), m.__dict__.get("forward")) for m in network.modules()]
    parameters = [
        (id(p), p.data_ptr(), p.dtype, p.device, p.requires_grad, p.stride(), p._version) for p in network.parameters()
    ]
    return [modules, parameters, dict(network.config)]


def test_a_view_shares_the_weights_and_nothing_else(network: Any) -> None:
    before = state_of(network)
    view = own_view(network)
    assert state_of(network) == before
    assert not view.training and not any(p.requires_grad for p in view.parameters())
    for (name, ours), (_, theirs) in zip(view.named_parameters(), network.named_parameters(), strict=True):
        assert ours is not theirs and ours.data_ptr() == theirs.data_ptr(), name
    assert isinstance(view.conv_in, LeanConv2d) and type(network.conv_in) is nn.Conv2d
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(view(x, 3).sample, network.eval()(x, 3).sample)


def test_a_view_of_the_callers_network_in_training(network: Any) -> None:
    """The caller's network trains on; its steps, made in place, show in the view; moving the view moves only it."""
    view = own_view(network)
    x = torch.randn(1, 3, 16, 16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with torch.no_grad():
        first = view(x, 3).sample
    network(x, 3).sample.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    optimizer.step()
    with torch.no_grad():
        second = view(x, 3).sample
    assert not torch.equal(first, second)
    before = state_of(network)
    place(view, "cpu", torch.bfloat16, channels_last=True)
    assert state_of(network) == before
    assert view.dtype == torch.bfloat16 and network.dtype == torch.float32
    assert not any(p.grad is not None for p in view.parameters())


def test_hooks_and_wrapped_forwards_stay_with_the_caller(network: Any) -> None:
    """They may refer to the caller's modules; a view that ran them would run, or record, those."""
    called: list[str] = []
    plain = own_view(network)
    network.conv_in.register_forward_hook(lambda *_: called.append("hook"))
    network.mid_block.register_forward_pre_hook(lambda *_, **__: called.append("pre-hook"), with_kwargs=True)
    network.conv_out.register_full_backward_hook(lambda *_: called.append("backward"))
    whole = network.time_embedding.forward
    network.time_embedding.forward = lambda *a, **k: [called.append("forward"), whole(*a, **k)][1]
    view, before = own_view(network), state_of(network)
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    found, expected = view(x, 3).sample, plain(x, 3).sample
    torch.autograd.grad(found.sum(), x)
    assert torch.equal(found, expected) and called == []
    assert state_of(network) == before
    network(x, 3).sample.sum().backward()
    assert called == ["forward", "hook", "pre-hook", "backward"]


def test_a_view_keeps_shared_weights_shared_and_plain_tensors() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.register_buffer("scale", torch.ones(3))
            self.graphed = self.first.weight * 2  # not a leaf: what a deep copy cannot copy

    network = Tied()
    view = own_view(network)
    assert view.first.weight is view.second.weight and view.first.weight is not network.first.weight
    assert view.scale.data_ptr() == network.scale.data_ptr() and view.scale is not network.scale
    assert torch.equal(view.graphed, network.graphed) and not view.graphed.requires_grad


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_a_hook_of_torch_computes() -> None:
    """Loaded since it was computed last: the hook computes it again, in the view too."""
    network = nn.Sequential(
        nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.utils.prune.identity(nn.Conv2d(4, 2, 1), "bias")
    )
    with torch.no_grad():
        network[0].weight_g.mul_(2)
    view, x = own_view(network), torch.randn(1, 3, 8, 8)
    expected = network(x)
    assert torch.equal(view(x), expected) and not view(x).requires_grad and expected.requires_grad


@pytest.mark.parametrize("made", ["inside", "outside"])
def test_a_view_made_in_inference_mode_has_gradients(made: str, network: Any) -> None:
    with torch.inference_mode():
        given = UNet2DModel.from_config(network.config) if made == "inside" else network
        view = own_view(given)
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(view(x, 3).sample.sum(), x)
    assert grad.abs().max() > 0


def test_a_view_of_a_compiled_network_is_one_of_the_network_itself(network: Any) -> None:
    view = own_view(torch.compile(network, backend="eager"))
    assert type(view) is UNet2DModel
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(view.parameters(), network.parameters(), strict=True))


def test_a_prior_can_be_made_of_a_priors_network(pixel: PixelPrior) -> None:
    again = PixelPrior(copy.copy(pixel.unet), BETAS["linear"]())
    z = torch.randn(1, 3, 16, 16)
    assert torch.equal(again.predict(z, 3).eps, pixel.predict(z, 3).eps)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1.0, 1e30])
def test_a_float16_gradient_of_any_size_survives(size: float) -> None:
    """Of a linear network the gradient is known; each image has its own scale."""
    weight = torch.tensor([[0.5, -2.0], [3.0, 0.25]])
    x = torch.ones(2, 2, requires_grad=True)
    y = run_network(lambda h: h @ weight.to(h.dtype), x, torch.float16)
    direction = torch.tensor([[size, 2 * size], [1.0, 0.0]])
    (grad,) = torch.autograd.grad(y, x, direction)
    torch.testing.assert_close(grad, direction @ weight.T, rtol=2e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_second_derivative_of_a_network_in_half_precision(dtype: torch.dtype) -> None:
    """Of the sum of c x^3 it is 6 c x; of half the sum of x^6, whose first derivative depends on the output, 15 x^4."""
    x = torch.tensor([[0.5, -1.0, 1.5]], requires_grad=True)
    y = run_network(lambda h: h**3, x, dtype)
    (grad,) = torch.autograd.grad(1e-3 * y.sum(), x, create_graph=True)
    torch.testing.assert_close(grad, 3e-3 * x**2, rtol=2e-2, atol=0)
    second: Tensor = torch.autograd.grad(grad.sum(), x, retain_graph=True)[0]
    torch.testing.assert_close(second, 6e-3 * x, rtol=2e-2, atol=0)
    (grad,) = torch.autograd.grad(0.5 * y.square().sum(), x, create_graph=True)
    torch.testing.assert_close(grad, 3 * x**5, rtol=2e-2, atol=0)
    torch.testing.assert_close(torch.autograd.grad(grad.sum(), x)[0], 15 * x**4, rtol=2e-2, atol=0)
