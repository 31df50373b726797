"""Priors from objects: what the prior computes is what the pipeline computes, and the pipeline stays as it is."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LDMPipeline,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pag_inverse import LatentPrior, PerturbedAttentionGuidance, PixelPrior, load_prior
from pag_inverse.priors.load import prompt_of
from pag_inverse.priors.quantised import QuantisedLatentPrior

BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


def unet(channels: int = 3, **settings: Any) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        **settings,
    )


def prompted_unet(**settings: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        **{"cross_attention_dim": 32, **settings},
    )


def autoencoder(kind: Any = AutoencoderKL, **settings: Any) -> Any:
    torch.manual_seed(1)
    return kind(block_out_channels=(32, 32), **{"latent_channels": 4, **BLOCKS, **settings})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    """A tokenizer of letters."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = [f"{letter}{end}" for end in ("", "</w>") for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = {word: i for i, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=12)


def text_encoder() -> CLIPTextModel:
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 1}
    tokens = {"vocab_size": 54, "max_position_embeddings": 12, "bos_token_id": 52, "eos_token_id": 53}
    return CLIPTextModel(CLIPTextConfig(**sizes, **tokens))


def stable_diffusion(tokenizer: CLIPTokenizer | None, kind: Any = StableDiffusionPipeline, **settings: Any) -> Any:
    scheduler = PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    parts = {"vae": autoencoder(), "text_encoder": text_encoder(), "unet": prompted_unet(), "scheduler": scheduler}
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return kind(tokenizer=tokenizer, **{**parts, **none, **settings})


def networks_of(pipeline: Any) -> list[Any]:
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def state_of(pipeline: Any) -> list[Any]:
    """All that a caller could notice of a change."""
    return [
        (
            [(type(m), m.training, len(m._forward_hooks), vars(m).get("gradient_checkpointing")) for m in modules],
            [(id(p), p.data_ptr(), p.dtype, p.requires_grad, p.stride(), p._version) for p in network.parameters()],
            dict(network.config) if isinstance(network.config, dict) else network.config.to_dict(),
        )
        for network in networks_of(pipeline)
        for modules in [list(network.modules())]
    ]


@pytest.mark.parametrize("kind", [DDPMPipeline, DDIMPipeline])
def test_pixel_pipelines(kind: Any) -> None:
    pipeline = kind(unet=unet(), scheduler=DDPMScheduler(beta_start=2e-4, beta_end=0.03))
    before = state_of(pipeline)
    prior = load_prior(pipeline)
    assert isinstance(prior, PixelPrior) and prior.image_size == 8
    assert (prior.betas[0], prior.betas[-1]) == (2e-4, 0.03)
    z = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(prior.predict(z, 7).eps, pipeline.unet(z, 7).sample)
    assert state_of(pipeline) == before


def test_v_prediction_of_a_pipeline() -> None:
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    prior = load_prior(DDIMPipeline(unet=unet(), scheduler=scheduler))
    z = torch.randn(1, 3, 8, 8)
    scheduler.set_timesteps(1000)
    with torch.no_grad():
        x0 = scheduler.step(unet()(z, 400).sample, 400, z).pred_original_sample
        found = prior.predict(z, 400).eps
    abar = scheduler.alphas_cumprod[400]
    torch.testing.assert_close(found, (z - abar.sqrt() * x0) / (1 - abar).sqrt(), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_stable_diffusion_with_prompts(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    """The empty prompt and others are what the pipeline's own encode_prompt says; a folder of it is the same prior."""
    pipeline = stable_diffusion(tokenizer)
    pipeline.text_encoder.train()
    before = state_of(pipeline)
    prior = load_prior(pipeline)
    assert isinstance(prior, LatentPrior) and prior.image_size == 16
    pipeline.text_encoder.eval()
    condition, empty = pipeline.encode_prompt("a cat", "cpu", 1, True)
    assert torch.equal(prior.empty, empty) and torch.equal(prompt_of(prior, "a cat"), condition)
    z, x = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 16, 16) * 2 - 1
    for given, embedding in ((None, empty), (condition, condition)):
        expected = pipeline.unet(z, 500, encoder_hidden_states=embedding.expand(2, -1, -1)).sample
        assert torch.equal(prior.predict(z, 500, given).eps, expected)
    assert torch.equal(prior.encode(x), pipeline.vae.encode(x).latent_dist.mode() * 0.18215)
    assert torch.equal(prior.decode(z), pipeline.vae.decode(z / 0.18215).sample)
    pipeline.text_encoder.train()
    assert state_of(pipeline) == before
    pipeline.save_pretrained(tmp_path)
    folder = load_prior(tmp_path)
    assert torch.equal(folder.predict(z, 500).eps, prior.predict(z, 500).eps)
    assert torch.equal(prompt_of(folder, "a cat"), condition)
    for other in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert torch.equal(prompt_of(other, "a cat"), condition)


def test_the_pipeline_works_and_trains_on(tokenizer: CLIPTokenizer) -> None:
    pipeline = stable_diffusion(tokenizer)
    prior = load_prior(pipeline)
    z = torch.randn(1, 4, 8, 8, requires_grad=True)
    layer = prior.layers()[0].diffusers
    eps = PerturbedAttentionGuidance(2.0, [layer])(prior, z, 500)
    (grad,) = torch.autograd.grad(prior.decode(eps.unguided).sum(), z)
    assert grad.abs().max() > 0
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat", num_inference_steps=2, height=16, width=16, output_type="np").images
    assert image.shape == (1, 16, 16, 3)
    pipeline.unet.train()
    condition = torch.randn(1, 12, 32)
    pipeline.unet(torch.randn(1, 4, 8, 8), 3, encoder_hidden_states=condition).sample.square().sum().backward()
    assert all(p.grad is not None for p in pipeline.unet.parameters())
    assert not any(p.grad is not None for p in prior.unet.parameters())


@pytest.mark.parametrize("option", [{"precision": "bfloat16"}, {"channels_last": True}, {"low_memory": True}], ids=str)
def test_options_change_the_prior_alone(option: dict[str, Any], tokenizer: CLIPTokenizer) -> None:
    pipeline = stable_diffusion(tokenizer)
    before = state_of(pipeline)
    prior = load_prior(pipeline, **option)
    z = torch.randn(1, 4, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(prior.decode(prior.predict(z, 500).eps).sum(), z)
    assert grad.dtype == torch.float32 and grad.abs().max() > 0
    assert state_of(pipeline) == before
    dtype = torch.bfloat16 if "precision" in option else torch.float32
    assert {p.dtype for network in prior.networks() for p in network.parameters()} == {dtype}


def test_a_pipeline_keeps_its_own_precision() -> None:
    pipeline = DDPMPipeline(unet=unet().to(torch.bfloat16), scheduler=DDPMScheduler())
    assert next(load_prior(pipeline).unet.parameters()).dtype == torch.bfloat16
    assert next(load_prior(pipeline, precision="float32").unet.parameters()).dtype == torch.float32
    assert pipeline.unet.dtype == torch.bfloat16


@torch.no_grad()
def test_latent_diffusion_with_a_codebook(tmp_path: Path) -> None:
    vqvae = autoencoder(VQModel, latent_channels=3, num_vq_embeddings=16, scaling_factor=0.5)
    prior = load_prior(LDMPipeline(vqvae=vqvae, unet=unet(), scheduler=DDIMScheduler()))
    x = torch.rand(1, 3, 16, 16)
    assert isinstance(prior, QuantisedLatentPrior)
    assert torch.equal(prior.encode(x), vqvae.encode(x).latents * 0.5)


@torch.no_grad()
def test_a_pipeline_from_files_without_a_scale_is_not_scaled(tmp_path: Path) -> None:
    """As a folder of the same files: ldm-celebahq-256 was saved before diffusers had a scale."""
    vqvae = autoencoder(VQModel, latent_channels=3, num_vq_embeddings=16)
    LDMPipeline(vqvae=vqvae, unet=unet(), scheduler=DDIMScheduler()).save_pretrained(tmp_path)
    file = tmp_path / "vqvae" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "scaling_factor"}))
    pipeline, x = LDMPipeline.from_pretrained(tmp_path), torch.rand(1, 3, 16, 16)
    before = state_of(pipeline)
    assert torch.equal(load_prior(pipeline).encode(x), vqvae.encode(x).latents)
    assert torch.equal(load_prior(tmp_path).encode(x), vqvae.encode(x).latents)
    assert state_of(pipeline) == before


@torch.no_grad()
def test_networks_without_a_pipeline() -> None:
    z = torch.randn(1, 3, 8, 8)
    alone, theirs = load_prior(unet()), load_prior(unet(), scheduler=DDPMScheduler(beta_start=3e-4))
    assert isinstance(alone, PixelPrior) and (alone.betas[0], theirs.betas[0]) == (1e-4, 3e-4)
    assert torch.equal(alone.predict(z, 7).eps, unet()(z, 7).sample)
    vae = autoencoder()
    pair = load_prior((unet(4), vae))
    assert isinstance(pair, LatentPrior) and pair.image_size == 16 and pair.betas[0] == pytest.approx(0.00085)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(pair.encode(x), vae.encode(x).latent_dist.mode() * 0.18215)
    compiled = load_prior(torch.compile(unet(), backend="eager"))
    assert torch.equal(compiled.predict(z, 7).eps, alone.predict(z, 7).eps)


def offloaded() -> UNet2DModel:
    with torch.device("meta"):
        return unet()


def mixed() -> UNet2DModel:
    network = unet()
    network.conv_in.half()
    return network


FLOW = FlowMatchEulerDiscreteScheduler()
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (lambda t: 3, {}, "no prior can be made of int: give a name, a path"),
    (lambda t: None, {}, "no prior can be made of NoneType"),
    (lambda t: torch.nn.Linear(1, 1), {}, "Linear in place of UNet2DModel or UNet2DConditionModel"),
    (lambda t: autoencoder(), {}, "AutoencoderKL in place of UNet2DModel"),
    (lambda t: (unet(), autoencoder(), unet()), {}, "no prior can be made of UNet2DModel, AutoencoderKL, UNet2DModel"),
    (lambda t: (unet(4), AutoencoderTiny()), {}, "AutoencoderTiny in place of AutoencoderKL or VQModel"),
    (lambda t: prompted_unet(), {}, "a U-Net that takes a prompt needs an autoencoder"),
    (lambda t: (prompted_unet(), autoencoder()), {}, "no text encoder; give the whole pipeline"),
    (lambda t: stable_diffusion(t, StableDiffusionImg2ImgPipeline), {}, "a StableDiffusionImg2ImgPipeline is not"),
    (lambda t: stable_diffusion(t, text_encoder=None), {}, "no text encoder; give the whole pipeline"),
    (lambda t: stable_diffusion(t, unet=prompted_unet(cross_attention_dim=64)), {}, "32 wide, the U-Net takes 64"),
    (lambda t: stable_diffusion(t, unet=prompted_unet(in_channels=9)), {}, "the U-Net takes 9 channels; a latent"),
    (lambda t: stable_diffusion(t), {"scheduler": FLOW}, "has a scheduler of its own"),
    (lambda t: stable_diffusion(t), {"prediction": "v_prediction"}, "says epsilon, not v_prediction"),
    (lambda t: stable_diffusion(t), {"config": "x.yaml"}, "config is given but a StableDiffusionPipeline is no file"),
    (lambda t: unet(), {"scheduler": FLOW}, "a 'FlowMatchEulerDiscreteScheduler' is not supported"),
    (lambda t: unet(), {"scheduler": "ddim"}, "scheduler is a str"),
    (lambda t: unet(), {"scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2")}, "beta_schedule 'squaredcos"),
    (lambda t: unet(num_class_embeds=10), {}, "num_class_embeds is 10: a class-conditional network"),
    (lambda t: unet(6), {}, "the U-Net takes 6 channels; an image has 3"),
    (lambda t: unet(center_input_sample=True), {}, "images in .0, 1. is not supported"),
    (lambda t: unet(time_embedding_type="fourier"), {}, "time_embedding_type is 'fourier'"),
    (lambda t: (unet(4), autoencoder(shift_factor=0.1)), {}, "shift_factor is 0.1: an autoencoder whose latents"),
    (lambda t: (unet(3), autoencoder()), {}, "takes 3 channels; a latent of its autoencoder has 4"),
    (lambda t: offloaded(), {}, "its weights are offloaded"),
    (lambda t: mixed(), {}, "weights in float16, float32; they must be in one of"),
    (lambda t: unet(), {"precision": "int8"}, "precision is 'int8'"),
    (lambda t: "pixel", {"scheduler": FLOW}, "scheduler is given but pixel is a name or a path"),
]


@pytest.mark.parametrize(("make", "options", "message"), REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_objects_that_are_no_prior(make: Any, options: Any, message: str, tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_prior(make(tokenizer), **options)
    assert "\n" not in str(error.value)


def test_a_text_encoder_without_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="StableDiffusionPipeline has no tokenizer"):
        load_prior(stable_diffusion(None))
