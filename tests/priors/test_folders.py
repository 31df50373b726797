"""Unconditional models in diffusers folders: what the prior computes is what diffusers' own networks do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel, UNet2DModel, VQModel

from operators import GaussianBlur, GaussianNoise
from pag_inverse import PSLD, LatentPrior, NoGuidance, PixelPrior, load_prior, solve
from pag_inverse.priors.checkpoints.picture_side import picture_side


def unet(**settings: Any) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        **settings,
    ).eval()


def autoencoder(kind: Any, **settings: Any) -> Any:
    torch.manual_seed(1)
    return kind(
        block_out_channels=(32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=3,
        **settings,
    ).eval()


def ldm_folder(folder: Path, vae: Any, name: str, **scheduler: Any) -> Path:
    """The layout of CompVis/ldm-celebahq-256: `unet`, `vqvae`, `scheduler`."""
    unet().save_pretrained(folder / "unet")
    vae.save_pretrained(folder / name)
    DDIMScheduler(1000, 0.0015, 0.0195, "scaled_linear", **scheduler).save_pretrained(folder / "scheduler")
    return folder


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    content = {k: v for k, v in {**content, **changes}.items() if v is not ...}
    file.write_text(json.dumps(content))


@torch.no_grad()
def test_latents_of_a_vq_model(tmp_path: Path) -> None:
    vae = autoencoder(VQModel, num_vq_embeddings=32, scaling_factor=0.5)
    prior = load_prior(ldm_folder(tmp_path, vae, "vqvae"))
    assert isinstance(prior, LatentPrior) and prior.image_size == picture_side(str(tmp_path)) == 32
    z, x = torch.randn(2, 3, 8, 8), torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(prior.predict(z, 321).eps, unet()(z, 321).sample)
    latents = vae.encode(x).latents
    assert torch.equal(prior.encode(x), latents * 0.5)  # before the quantisation
    assert torch.equal(prior.encode(x, draw=lambda shape: torch.randn(shape)), latents * 0.5)
    torch.testing.assert_close(prior.decode(latents * 0.5), vae.decode(latents).sample)
    assert prior.betas[-1] == pytest.approx(0.0195)


def test_the_gradient_passes_a_codebook_straight_through(tmp_path: Path) -> None:
    """Values are the codebook's, the gradient is the decoder's at the codebook's entry."""
    vae = autoencoder(VQModel, num_vq_embeddings=32, scaling_factor=1.0)
    prior = load_prior(ldm_folder(tmp_path, vae, "vqvae"))
    z, weights = torch.randn(1, 3, 8, 8, requires_grad=True), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        near = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, 3), vae.quantize.embedding.weight).argmin(dim=1)
        entry = vae.quantize.embedding.weight[near].reshape(1, 8, 8, 3).permute(0, 3, 1, 2).contiguous()
    x = prior.decode(z)
    (found,) = torch.autograd.grad((x * weights).sum(), z)
    entry.requires_grad_()
    expected = vae.decode(entry, force_not_quantize=True).sample
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), entry)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(found, gradient, atol=1e-3, rtol=1e-2)


def test_a_vq_model_without_a_scale_is_not_scaled(tmp_path: Path) -> None:
    """ldm-celebahq-256 was saved before diffusers had a scale, whose later default of 0.18215 is not its own."""
    vae = autoencoder(VQModel, num_vq_embeddings=32)
    folder = ldm_folder(tmp_path, vae, "vqvae")
    edit(folder / "vqvae" / "config.json", scaling_factor=...)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_prior(folder).encode(x), vae.encode(x).latents)


@torch.no_grad()
def test_latents_of_an_autoencoder_with_v_prediction(tmp_path: Path) -> None:
    vae = autoencoder(AutoencoderKL, scaling_factor=0.7)
    prior = load_prior(ldm_folder(tmp_path, vae, "vae", prediction_type="v_prediction"))
    z, x = torch.randn(1, 3, 8, 8), torch.rand(1, 3, 32, 32) * 2 - 1
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "scheduler", clip_sample=False)
    scheduler.set_timesteps(1000)
    x0 = scheduler.step(unet()(z, 400).sample, 400, z).pred_original_sample
    abar = scheduler.alphas_cumprod[400]
    expected = (z - abar.sqrt() * x0) / (1 - abar).sqrt()
    torch.testing.assert_close(prior.predict(z, 400).eps, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prior.encode(x), vae.encode(x).latent_dist.mode() * 0.7)


@pytest.mark.parametrize("inner", ["", "unet"])
def test_pixels(tmp_path: Path, inner: str) -> None:
    """With the network in its own folder, or at the top as in google/ddpm-celebahq-256."""
    unet().save_pretrained(tmp_path / inner)
    DDPMScheduler(1000, 0.0002, 0.03, "linear").save_pretrained(tmp_path / ("scheduler" if inner else ""))
    prior = load_prior(tmp_path)
    assert isinstance(prior, PixelPrior) and prior.betas[0] == 0.0002 and prior.image_size == 8
    z = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(prior.predict(z, 10).eps, unet()(z, 10).sample, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="says epsilon, not v_prediction"):
        load_prior(tmp_path, prediction="v_prediction")


def test_psld_with_a_vq_model(tmp_path: Path) -> None:
    prior = load_prior(ldm_folder(tmp_path, autoencoder(VQModel, num_vq_embeddings=32), "vqvae"))
    operator, noise = GaussianBlur((3, 32, 32), 5, 1.0), GaussianNoise(0.05)
    y = operator.forward(torch.rand(2, 3, 32, 32))
    both = solve(y, operator, prior, PSLD(eta=0.1, gamma=0.01), NoGuidance(), noise=noise, steps=3, seeds=[1, 2])
    assert not both.failed and both.x.isfinite().all()
    still = solve(y, operator, prior, PSLD(eta=0.0, gamma=0.0), NoGuidance(), noise=noise, steps=3, seeds=[1, 2])
    assert (both.z - still.z).abs().max() > 1e-4  # the data term reaches the latent


FAULTS = [
    ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type 'sample'"),
    ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule 'squaredcos_cap_v2'"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 500}, "num_train_timesteps is 500"),
    (
        "scheduler/scheduler_config.json",
        {"beta_schedule": ..., "_class_name": "EDMEulerScheduler"},
        "EDMEulerScheduler",
    ),
    ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "use_flow_sigmas"),
    ("vqvae/config.json", {"_class_name": "AutoencoderTiny"}, "a AutoencoderKL or VQModel belongs here"),
    ("vqvae/config.json", {"num_vq_embeddings": 16}, "cannot be loaded"),
    ("unet/config.json", {"layers_per_block": 2}, "cannot be loaded"),
]


@pytest.mark.parametrize("file, change, message", FAULTS)
def test_a_wrong_folder_is_one_line(tmp_path: Path, file: str, change: dict[str, Any], message: str) -> None:
    folder = ldm_folder(tmp_path, autoencoder(VQModel, num_vq_embeddings=32), "vqvae")
    edit(folder / file, **change)
    with pytest.raises(ValueError, match=message) as error:
        load_prior(folder)
    assert "\n" not in str(error.value)


OTHERS = [
    ({"num_class_embeds": 10}, {}, "num_class_embeds is 10: a class-conditional network"),
    ({"in_channels": 6}, {}, "the U-Net takes 6 channels; a latent of its autoencoder has 3"),
    ({"out_channels": 4}, {}, "the U-Net gives 4 channels; supported are 3 or 6"),
    ({"time_embedding_type": "fourier"}, {}, "time_embedding_type is 'fourier'"),
    ({}, {"shift_factor": 0.1159}, "shift_factor is 0.1159: an autoencoder whose latents"),
    ({}, {"in_channels": 4}, "an autoencoder of 4 channels"),
]


@pytest.mark.parametrize("of_unet, of_autoencoder, message", OTHERS)
def test_folders_of_other_kinds_of_models(
    tmp_path: Path, of_unet: dict[str, Any], of_autoencoder: dict[str, Any], message: str
) -> None:
    unet(**of_unet).save_pretrained(tmp_path / "unet")
    autoencoder(AutoencoderKL, **of_autoencoder).save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match=message) as error:
        load_prior(tmp_path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


def test_a_folder_of_version_2_without_a_scheduler_must_be_told(tmp_path: Path) -> None:
    UNet2DConditionModel(
        block_out_channels=(64, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=1,
        use_linear_projection=True,
    ).save_pretrained(tmp_path / "unet")
    autoencoder(AutoencoderKL).save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match="give --prediction"):
        load_prior(tmp_path)
