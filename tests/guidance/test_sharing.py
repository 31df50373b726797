"""One prior under many threads, layer sets and guidances gives what it gives alone, and keeps nothing."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise
from pag_inverse import DPS, NoGuidance, PerturbedAttentionGuidance, PixelPrior, solve
from pag_inverse.guidance import Guidance
from pag_inverse.priors.precision import spare_memory

SHAPE = (3, 32, 32)


def guidances(prior: PixelPrior) -> list[Guidance]:
    """No guidance, and PAG at each layer alone and at all."""
    layers = [layer.diffusers for layer in prior.layers()]
    each = [PerturbedAttentionGuidance(1.0 + i, [layer]) for i, layer in enumerate(layers)]
    return [NoGuidance(), *each, PerturbedAttentionGuidance(2.0, layers)]


def restored(prior: PixelPrior, guidance: Guidance, seed: int) -> Tensor:
    operator = GaussianBlur(SHAPE, 9, 1.5)
    y = operator.forward(torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1)
    return solve(y, operator, prior, DPS(0.5), guidance, noise=GaussianNoise(0.05), steps=4, seeds=[seed]).x


@pytest.fixture
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_threads_on_one_prior(checkpointing: bool, pixel: PixelPrior, one_thread: object) -> None:
    prior = copy.deepcopy(pixel)
    if checkpointing:  # the backward pass runs the forward again, while other threads are in theirs
        spare_memory(prior.unet)
    jobs = [(guidance, seed) for guidance in guidances(prior) for seed in (0, 1)]
    alone = [restored(prior, copy.copy(guidance), seed) for guidance, seed in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: restored(prior, *job), jobs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_two_threads_inside_one_guided_call(pixel: PixelPrior, one_thread: object) -> None:
    """Both wait for each other between their plain and their perturbed pass."""
    guidance = PerturbedAttentionGuidance(1.0, [pixel.layers()[0].diffusers])
    states = [torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    alone = [guidance(pixel, z, 500).guided for z in states]
    barrier = threading.Barrier(2, timeout=120)
    whole = pixel.predict

    def waiting(*args: object, **kwargs: object) -> object:
        found = whole(*args, **kwargs)  # type: ignore[arg-type]
        barrier.wait()
        return found

    prior = copy.copy(pixel)
    guidance._pairs_of(prior)  # what is made once, without the barrier
    prior.predict = waiting  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda z: guidance(prior, z, 500).guided, states))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_prior_keeps_no_hook_and_no_twin(pixel: PixelPrior) -> None:
    prior = copy.deepcopy(pixel)
    before = set(vars(prior))
    guidance = PerturbedAttentionGuidance(1.0, [prior.layers()[0].diffusers])
    guidance(prior, torch.randn(1, 3, 16, 16), 500)
    assert set(vars(prior)) == before and not prior._compilations
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in prior.unet.modules())
    twins = weakref.ref(guidance._pairs_of(prior)._idle[0].plain)
    reference = weakref.ref(prior)
    del guidance
    gc.collect()
    assert twins() is None
    del prior
    gc.collect()
    assert reference() is None


def test_a_guidance_keeps_no_prior_alive(pixel: PixelPrior) -> None:
    prior = copy.deepcopy(pixel)
    guidance = PerturbedAttentionGuidance(1.0, [prior.layers()[0].diffusers])
    guidance(prior, torch.randn(1, 3, 16, 16), 500)
    reference = weakref.ref(prior)
    del prior
    gc.collect()
    assert reference() is None and len(guidance._pairs) == 0


def test_a_guidance_is_copied_and_pickled_without_its_networks(pixel: PixelPrior) -> None:
    guidance, z = PerturbedAttentionGuidance(1.0, [pixel.layers()[0].diffusers]), torch.randn(1, 3, 16, 16)
    expected = guidance(pixel, z, 500).guided
    for other in (copy.deepcopy(guidance), pickle.loads(pickle.dumps(guidance))):
        assert torch.equal(other(pixel, z, 500).guided, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_restorations_under_no_grad_and_inference_mode(mode: type, pixel: PixelPrior) -> None:
    guidance = guidances(pixel)[1]
    expected = restored(pixel, guidance, 0)
    with mode():
        found = restored(pixel, guidance, 0)
        own = restored(PixelPrior(copy.deepcopy(pixel.unet), pixel.betas), copy.copy(guidance), 0)
    assert torch.equal(found, expected) and torch.equal(own, expected)


def test_a_callers_network_is_not_changed(pixel: PixelPrior) -> None:
    unet = copy.deepcopy(pixel.unet).train().requires_grad_(True)
    classes = [type(m) for m in unet.modules()]
    prior = PixelPrior(unet, pixel.betas)
    guidance = guidances(prior)[-1]
    assert torch.equal(restored(prior, guidance, 0), restored(pixel, guidance, 0))
    assert unet.training and all(p.requires_grad for p in unet.parameters())
    assert [type(m) for m in unet.modules()] == classes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())
