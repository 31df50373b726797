"""The eps that moves the sample in each pipeline is that of Eq. 10, or with a guided prompt that of Eq. 14."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from torch import Tensor

from pag_inverse.guidance.perturbation import perturbed_twin, twin
from pag_inverse.pipelines import exact_layers, guided_unet

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1"
KINDS = ("controlnet", "inpaint", "upscale")


def pictures(kind: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    side = 16 if kind == "upscale" else 32
    given: dict[str, Any] = {"image": torch.rand(1, 3, side, side, generator=generator)}
    if kind == "inpaint":
        mask = torch.zeros(1, 1, side, side)
        mask[..., 8:20, 8:20] = 1
        given |= {"mask_image": mask, "height": side, "width": side, "strength": 1.0}
    return given


def watched(pipeline: Any, kind: str, s: float, cfg: float, prompt: str, steps: int = 3) -> tuple[list[Any], Any]:
    """What each step's scheduler was given, beside the arguments of the U-Net's call; and the pictures."""
    calls, moves = [], []
    handle = pipeline.unet.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    step = pipeline.scheduler.step

    def recorded(eps: Tensor, *args: Any, **kwargs: Any) -> Any:
        moves.append(eps)
        return step(eps, *args, **kwargs)

    pipeline.scheduler.step = recorded
    further = {} if kind == "upscale" else {"pag_scale": s}
    images = pipeline(
        prompt=prompt,
        num_inference_steps=steps,
        guidance_scale=cfg,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        **pictures(kind),
        **further,
    ).images
    handle.remove()
    del pipeline.scheduler.step
    return list(zip(calls, moves, strict=True)), images


def rows(value: Any, keep: list[int], batch: int) -> Any:
    if isinstance(value, Tensor):
        return value[keep] if value.ndim and len(value) == batch else value
    if isinstance(value, (list, tuple)):
        return [rows(one, keep, batch) for one in value]
    return value


def passes(network: Any, call: Any, row: int) -> Tensor:
    """One row of a recorded call, through a network."""
    args, kwargs = call
    batch = len(args[0])
    with torch.no_grad():
        return network(
            *rows(args, [row], batch), **{name: rows(value, [row], batch) for name, value in kwargs.items()}
        )[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("cfg", "prompt"), [(1.0, ""), (3.0, "a face")])
def test_the_guided_eps(kind: str, cfg: float, prompt: str, make: Callable[[str], Any]) -> None:
    s = 2.5
    pipeline = make(kind)
    plain, perturbed = twin(pipeline.unet), perturbed_twin(pipeline.unet, [LAYER])
    if kind == "upscale":
        pipeline.unet = guided_unet(pipeline.unet, s, [LAYER], cfg=cfg)
    else:
        pipeline.set_pag_applied_layers(exact_layers(pipeline.unet, [LAYER]))
    pipeline.set_progress_bar_config(disable=True)
    steps, _ = watched(pipeline, kind, s, cfg, prompt)
    assert len(steps) == 3
    for call, move in steps:
        row = 1 if cfg > 1 else 0  # a batch is (null, prompt), and with diffusers' PAG the perturbed one beside them
        eps, eps_hat = passes(plain, call, row), passes(perturbed, call, row)
        expected = eps + s * (eps - eps_hat)  # Eq. 10
        if cfg > 1:
            expected = expected + (cfg - 1) * (eps - passes(plain, call, 0))  # Eq. 14, whose w is cfg - 1
        assert float((eps - eps_hat).abs().max()) > 1e-3
        torch.testing.assert_close(move, expected, rtol=0, atol=2e-5)


def test_the_guided_unet_in_the_stock_pipeline_is_diffusers_own_pag(make: Callable[[str], Any]) -> None:
    theirs = make("inpaint")
    theirs.set_pag_applied_layers(exact_layers(theirs.unet, [LAYER]))
    parts = {**theirs.components, "requires_safety_checker": False}
    ours = StableDiffusionInpaintPipeline(**parts)
    ours.unet = guided_unet(theirs.unet, 2.0, [LAYER], cfg=3.0)
    given = {"prompt": "a face", "num_inference_steps": 3, "guidance_scale": 3.0}
    seeded = [torch.Generator().manual_seed(5) for _ in range(2)]
    expected = theirs(**given, **pictures("inpaint"), generator=seeded[0], pag_scale=2.0, output_type="pt").images
    found = ours(**given, **pictures("inpaint"), generator=seeded[1], output_type="pt").images
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("s", [0.0, 2.0])
def test_no_scale_is_the_stock_pipeline_and_a_scale_is_not(s: float, make: Callable[[str], Any]) -> None:
    stock, guided = make("upscale"), make("upscale")
    guided.unet = guided_unet(guided.unet, s, [LAYER])
    pair = [watched(one, "upscale", s, 1.0, "")[1] for one in (stock, guided)]
    assert ((pair[0] == pair[1]).all()) == (s == 0)


def test_the_callers_network_is_left_as_it_is(make: Callable[[str], Any]) -> None:
    unet = make("upscale").unet
    before = {name: type(processor) for name, processor in unet.attn_processors.items()}
    view = guided_unet(unet, 2.0, [LAYER])
    assert {name: type(processor) for name, processor in unet.attn_processors.items()} == before
    assert not unet._forward_hooks and view is not unet
    assert view.conv_in.weight.data_ptr() == unet.conv_in.weight.data_ptr()


def test_layers_are_taken_exactly(make: Callable[[str], Any]) -> None:
    """diffusers reads `mid` as any layer with these letters; a regular expression of the whole name is that layer."""
    pipeline = make("inpaint")
    pipeline.set_pag_applied_layers(exact_layers(pipeline.unet, ["middle_block.1.transformer_blocks.0.attn1"]))
    pipeline._set_pag_attn_processor(pipeline.pag_applied_layers, False)
    assert list(pipeline.pag_attn_processors) == [f"{LAYER}.processor"]
    with pytest.raises(ValueError, match="holds no self-attention"):
        exact_layers(pipeline.unet, ["mid"])
    with pytest.raises(ValueError, match="no layer is named"):
        guided_unet(pipeline.unet, 1.0, [])
