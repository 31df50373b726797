"""Tiny random pipelines of Stable Diffusion, and their folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionControlNetPAGPipeline,
    StableDiffusionPAGInpaintPipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTHS, CONTEXT = (16, 32), 16


def unet(channels: int, **further: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=64,  # less counts as an old checkpoint
        in_channels=channels,
        out_channels=4,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=CONTEXT,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **further,
    )


def vae(**further: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
        **further,
    )


def texts(folder: Path) -> dict[str, Any]:
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "face</w>": 3}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPTextConfig(
        vocab_size=4,
        hidden_size=CONTEXT,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=12)
    return {"tokenizer": tokenizer, "text_encoder": CLIPTextModel(config).eval()}


def schedule(kind: Any = DDIMScheduler, **further: Any) -> Any:
    return kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, **further)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Makes the tiny pipeline of a kind, the same one at each call."""
    words = texts(tmp_path_factory.mktemp("tokenizer"))

    def made(kind: str) -> Any:
        torch.manual_seed(0)
        if kind == "upscale":
            return StableDiffusionUpscalePipeline(
                unet=unet(7, num_class_embeds=1000, only_cross_attention=(True, False)),
                vae=vae(scaling_factor=0.08333),
                scheduler=schedule(prediction_type="v_prediction", steps_offset=1),
                low_res_scheduler=schedule(DDPMScheduler),
                **words,
            )
        parts = {"vae": vae(), "scheduler": schedule(steps_offset=1), **words}
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        if kind == "inpaint":
            return StableDiffusionPAGInpaintPipeline(unet=unet(9), **parts)
        network = unet(4)
        control = ControlNetModel.from_unet(network, conditioning_embedding_out_channels=(8, 16))
        for parameter in control.parameters():  # its outputs are zero before training
            torch.nn.init.normal_(parameter, std=0.1)
        return StableDiffusionControlNetPAGPipeline(unet=network, controlnet=control, **parts)

    return made


@pytest.fixture(scope="session")
def folders(make: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each tiny pipeline saved in diffusers' layout; `control` is that of the control network."""
    found = {}
    for kind in ("controlnet", "inpaint", "upscale"):
        found[kind] = tmp_path_factory.mktemp(kind)
        pipeline = make(kind)
        pipeline.save_pretrained(found[kind])
        if kind == "controlnet":
            found["control"] = tmp_path_factory.mktemp("control")
            pipeline.controlnet.save_pretrained(found["control"])
    return found
