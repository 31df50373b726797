"""Settings of models in folders: what is published and what diffusers writes loads; another kind of model does not."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel, VQModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from pag_inverse import LatentPrior, PixelPrior, load_prior
from pag_inverse.priors.attention_layers import checkpoint_name
from pag_inverse.priors.checkpoints.construction import build_network, check_depth, check_settings
from pag_inverse.priors.checkpoints.picture_side import picture_side
from pag_inverse.priors.load import prompt_of

LEVELS: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def unet(**settings: Any) -> UNet2DModel:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return UNet2DModel(**{"sample_size": 8, **LEVELS, **blocks, "attention_head_dim": 8, **settings}).eval()


def autoencoder(kind: Any = AutoencoderKL, **settings: Any) -> Any:
    torch.manual_seed(1)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return kind(**{**LEVELS, **blocks, "latent_channels": 4, **settings}).eval()


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """The layout of google/ddpm-celebahq-256: the network at the top, with its scheduler."""
    unet().save_pretrained(tmp_path)
    DDIMScheduler().save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def prompted(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    UNet2DConditionModel(
        **{"sample_size": 8, **LEVELS, "attention_head_dim": 4, "cross_attention_dim": 16},
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(tmp_path / "unet")
    autoencoder().save_pretrained(tmp_path / "vae")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    CLIPTextModel(CLIPTextConfig(**sizes)).save_pretrained(tmp_path / "text_encoder")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    return tmp_path


def edit(file: Path, **changes: Any) -> None:
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_prior(folder)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(folder))


# Schedulers.

SAMPLERS = (
    "DDPM", "DDIM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "LMSDiscrete", "HeunDiscrete", "KDPM2Discrete",
    "KDPM2AncestralDiscrete", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep",
    "DDIMInverse",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_of_the_chain(name: str, pixels: Path) -> None:
    """As diffusers writes their settings, -Infinity in the JSON included; the class's own defaults count."""
    kind = getattr(diffusers, f"{name}Scheduler")
    scheduler = kind(beta_schedule="scaled_linear")
    scheduler.save_pretrained(pixels)
    torch.testing.assert_close(torch.from_numpy(load_prior(pixels).betas).float(), scheduler.betas)
    edit(pixels / "scheduler_config.json", beta_start=..., beta_end=...)
    torch.testing.assert_close(torch.from_numpy(load_prior(pixels).betas).float(), scheduler.betas)


PUBLISHED: dict[str, dict[str, Any]] = {
    "stable-diffusion-v1-5": {
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
        "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
        "clip_sample": False,
    },
    "ldm-celebahq-256": {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.0.4", "beta_end": 0.0195,
        "beta_schedule": "scaled_linear", "beta_start": 0.0015, "clip_sample": False, "num_train_timesteps": 1000,
        "timestep_values": None, "timesteps": 1000, "trained_betas": None, "tensor_format": "pt",
    },
    "ddpm-celebahq-256": {
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear",
        "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "trained_betas": None,
        "variance_type": "fixed_small",
    },
    "stable-diffusion-2-1": {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
        "prediction_type": "v_prediction", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
        "trained_betas": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schedulers(name: str, pixels: Path) -> None:
    (pixels / "scheduler_config.json").write_text(json.dumps(PUBLISHED[name]))
    prior = load_prior(pixels)
    assert (prior.betas[0], prior.betas[-1]) == pytest.approx(
        (PUBLISHED[name]["beta_start"], PUBLISHED[name]["beta_end"])
    )
    assert prior.prediction == PUBLISHED[name].get("prediction_type", "epsilon")


OTHER_CHAINS = ("LCM", "TCD", "EDMEuler", "EDMDPMSolverMultistep", "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete",
                "ScoreSdeVe", "CMStochasticIterative", "IPNDM", "UnCLIP")  # fmt: skip


@pytest.mark.parametrize("name", OTHER_CHAINS)
def test_samplers_of_other_models(name: str, pixels: Path) -> None:
    getattr(diffusers, f"{name}Scheduler")().save_pretrained(pixels)
    refused(pixels, f"a '{name}Scheduler' is not supported")


OTHER_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"trained_betas": [0.1] * 1000}, "trained_betas is"),
    ({"trained_betas": []}, "trained_betas is"),
    ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
    ({"rescale_betas_zero_snr": "no"}, "rescale_betas_zero_snr is 'no'"),
    ({"use_flow_sigmas": True}, "use_flow_sigmas is True"),
    ({"flow_shift": 3.0}, "flow_shift is 3.0"),
    ({"use_dynamic_shifting": True}, "use_dynamic_shifting is True"),
    ({"timestep_type": "continuous"}, "timestep_type is 'continuous'"),
    ({"variance_type": "learned"}, "variance_type is 'learned'"),
    ({"timestep_scaling": 10.0}, "'timestep_scaling' is an unknown key"),
    ({"shift": 3.0}, "'shift' is an unknown key"),
    ({"num_train_timesteps": 500}, "num_train_timesteps is 500"),
    ({"num_train_timesteps": "1000"}, "num_train_timesteps is '1000'"),
    ({"num_train_timesteps": None}, "num_train_timesteps is None"),
    ({"num_train_timesteps": True}, "num_train_timesteps is True"),
    ({"beta_start": None}, "beta_start is None"),
    ({"beta_start": "0.1"}, "beta_start is '0.1'"),
    ({"beta_start": -1e-4}, "beta_start is -0.0001"),
    ({"beta_start": math.nan}, "beta_start is nan"),
    ({"beta_end": math.inf}, "beta_end is inf"),
    ({"beta_end": 1.0}, "beta_end is 1.0"),
    ({"beta_start": 0.03}, "beta_start 0.03 is above beta_end 0.02"),
    ({"beta_schedule": None}, "beta_schedule None"),
    ({"beta_schedule": ["linear"]}, "beta_schedule .'linear'."),
    ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule 'squaredcos_cap_v2'"),
    ({"prediction_type": ["epsilon"]}, "prediction_type .'epsilon'."),
    ({"prediction_type": "sample"}, "prediction_type 'sample'"),
    ({"_class_name": ["DDIMScheduler"]}, "is not supported"),
]


@pytest.mark.parametrize(("changes", "message"), OTHER_SETTINGS, ids=str)
def test_settings_of_another_chain(changes: dict[str, Any], message: str, pixels: Path) -> None:
    edit(pixels / "scheduler_config.json", **changes)
    refused(pixels, message)


def test_settings_of_sampling_have_no_effect(pixels: Path) -> None:
    edit(pixels / "scheduler_config.json", clip_sample=False, thresholding=True, use_karras_sigmas=True, _of_mine=3,
         steps_offset=1, skip_prk_steps=True, timestep_spacing="trailing", lambda_min_clipped=-math.inf,
         solver_order=3, flow_shift=1, use_flow_sigmas=False, set_alpha_to_one=False)  # fmt: skip
    assert load_prior(pixels).betas[0] == 1e-4


# Networks.

OTHER_NETWORKS: list[tuple[dict[str, Any], str]] = [
    ({"down_sampler": 3}, "'down_sampler' is an unknown key of a UNet2DModel"),
    ({"x" * 4000: 3}, "is an unknown key"),
    ({"layers_per_block": 10**9}, "layers_per_block is 1000000000; it must be a whole number, from 0 to 64"),
    ({"layers_per_block": 64}, "cannot be loaded: not the weights of one UNet2DModel: Missing"),
    ({"layers_per_block": [None, None]}, "cannot be loaded"),
    ({"layers_per_block": None}, "cannot be loaded"),
    ({"layers_per_block": "x"}, "layers_per_block is 'x'"),
    ({"block_out_channels": 8}, "block_out_channels is 8; it must be a list"),
    ({"block_out_channels": [10**9, 16]}, "block_out_channels is 1000000000"),
    ({"block_out_channels": [-8, 16]}, "block_out_channels is -8"),
    ({"block_out_channels": ["8", 16]}, "block_out_channels is '8'"),
    ({"block_out_channels": [None, 16]}, "cannot be loaded"),
    ({"block_out_channels": None}, "cannot be loaded"),
    ({"block_out_channels": []}, "a list has 1 to 12 values"),
    ({"block_out_channels": [8] * 10**5}, "a list has 1 to 12 values"),
    ({"block_out_channels": [[8], [16]]}, "a list has 1 to 12 values"),
    ({"block_out_channels": [8, 16, 16]}, "cannot be loaded"),
    ({"down_block_types": ["DownBlock2D"]}, "cannot be loaded"),
    ({"down_block_types": ["NoBlock2D", "AttnDownBlock2D"]}, "cannot be loaded"),
    ({"down_block_types": "DownBlock2D"}, "down_block_types is 'DownBlock2D'; it must be a list"),
    ({"norm_num_groups": 0}, "cannot be loaded"),
    ({"norm_num_groups": 3}, "cannot be loaded"),
    ({"norm_eps": -1e-5}, "norm_eps is -1e-05"),
    ({"attention_head_dim": 0}, "cannot be loaded"),
    ({"attention_head_dim": "eight"}, "attention_head_dim is 'eight'"),
    ({"flip_sin_to_cos": "yes"}, "flip_sin_to_cos is 'yes'"),
    ({"act_fn": "none"}, "cannot be loaded"),
    ({"freq_shift": 10**400}, "freq_shift is"),
    ({"sample_size": 9}, "sample_size of the U-Net is 9; it must be a multiple of 2"),
    ({"sample_size": 0}, "sample_size of the U-Net is 0"),
    ({"sample_size": [8, "x"]}, "sample_size of the U-Net is 'x'"),
    ({"sample_size": 10**9}, "sample_size is 1000000000"),
    ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep': a class-conditional network"),
    ({"num_class_embeds": 0}, "num_class_embeds is 0: a class-conditional network"),
    ({"center_input_sample": True}, "center_input_sample is True"),
    ({"time_embedding_type": "learned"}, "time_embedding_type is 'learned'"),
    ({"in_channels": 4, "out_channels": 4}, "size mismatch for conv_in.weight"),
]


@pytest.mark.parametrize(("changes", "message"), OTHER_NETWORKS, ids=lambda value: str(value)[:60])
def test_settings_of_no_network_of_pixels(changes: dict[str, Any], message: str, pixels: Path) -> None:
    edit(pixels / "config.json", **changes)
    refused(pixels, message)
    assert 0 < picture_side(str(pixels)) <= 2**16


OTHER_PARTS: list[tuple[str, dict[str, Any], str]] = [
    ("unet", {"encoder_hid_dim": 16}, "encoder_hid_dim is 16"),
    ("unet", {"dual_cross_attention": True}, "dual_cross_attention is True: a network with a picture as condition"),
    ("unet", {"time_cond_proj_dim": 256}, "time_cond_proj_dim is 256: a distilled network"),
    ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time': Stable Diffusion XL"),
    ("unet", {"attention_type": "gated"}, "attention_type is 'gated'"),
    ("unet", {"projection_class_embeddings_input_dim": 8}, "projection_class_embeddings_input_dim is 8"),
    ("unet", {"in_channels": 9}, "cannot be loaded"),
    ("unet", {"cross_attention_dim": 10**6}, "cross_attention_dim is 1000000"),
    ("unet", {"transformer_layers_per_block": 64, "layers_per_block": 64}, "8192 blocks do not fit to"),
    ("unet", {"transformer_layers_per_block": ["x", 1]}, "transformer_layers_per_block is 'x'"),
    ("unet", {"conv_in_kernel": 2}, "cannot be loaded"),
    ("vae", {"latent_channels": 10**6}, "latent_channels is 1000000"),
    ("vae", {"latent_channels": 8}, "cannot be loaded"),
    ("vae", {"scaling_factor": None}, "scaling_factor of the autoencoder is None"),
    ("vae", {"scaling_factor": 0}, "scaling_factor of the autoencoder is 0"),
    ("vae", {"scaling_factor": "0.2"}, "scaling_factor is '0.2'"),
    ("vae", {"scaling_factor": -1.0}, "scaling_factor is -1.0"),
    ("vae", {"shift_factor": 0.0}, "shift_factor is 0.0"),
    ("vae", {"latents_mean": [0.0] * 4}, "latents_mean is"),
    ("vae", {"latents_std": [1.0] * 4}, "latents_std is"),
    ("vae", {"scale": 2.0}, "'scale' is an unknown key of a AutoencoderKL"),
    ("vae", {"_class_name": "AutoencoderTiny"}, "holds a 'AutoencoderTiny'"),
    ("vae", {"_class_name": "line\nbreak"}, "belongs here"),
    ("vae", {"_class_name": ["VQModel"]}, "belongs here"),
    ("text_encoder", {"architectures": ["CLIPModel"]}, "holds a .'CLIPModel'.; a CLIPTextModel belongs here"),
    ("text_encoder", {"hidden_size": 32}, "cannot be loaded"),
    ("text_encoder", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
    ("text_encoder", {"num_hidden_layers": 64}, "64 blocks do not fit to"),
    ("text_encoder", {"num_attention_heads": 0}, "cannot be loaded"),
    ("text_encoder", {"hidden_act": "no"}, "cannot be loaded"),
    ("text_encoder", {"vocab_size": 10**9}, "vocab_size is 1000000000"),
]


@pytest.mark.parametrize(("part", "changes", "message"), OTHER_PARTS, ids=lambda value: str(value)[:60])
def test_settings_of_no_latent_diffusion(part: str, changes: dict[str, Any], message: str, prompted: Path) -> None:
    edit(prompted / part / "config.json", **changes)
    refused(prompted, message)


def test_a_codebook_of_other_channels_than_its_encoder(tmp_path: Path) -> None:
    """The U-Net takes what lies between: vq_embed_dim channels."""
    autoencoder(VQModel, vq_embed_dim=3, num_vq_embeddings=16).save_pretrained(tmp_path / "vqvae")
    unet().save_pretrained(tmp_path / "unet")
    prior = load_prior(tmp_path)
    assert prior.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 8, 8)
    unet(in_channels=4, out_channels=4).save_pretrained(tmp_path / "unet")
    refused(tmp_path, "the U-Net takes 4 channels; a latent of its autoencoder has 3")
    edit(tmp_path / "vqvae" / "config.json", lookup_from_codebook=True)
    refused(tmp_path, "lookup_from_codebook is True")


def test_a_text_encoder_that_is_missing_or_of_another_width(prompted: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    CLIPTextModel(CLIPTextConfig(**sizes)).save_pretrained(prompted / "text_encoder")
    refused(prompted, "the text encoder is 32 wide, the U-Net takes 16")
    (prompted / "text_encoder").rename(prompted / "elsewhere")
    refused(prompted, "has no text_encoder, which its U-Net needs")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(part: str, value: float, prompted: Path) -> None:
    (file,) = (prompted / part).glob("*.safetensors")
    state = load_file(file)
    key = max(state)
    state[key].flatten()[-1] = value
    save_file(state, file)
    refused(prompted, f"key {key} of shape .* holds NaN or infinite numbers")


def test_an_object_whose_weights_are_not_finite() -> None:
    network = unet()
    network.conv_in.bias.data[1] = math.nan
    with pytest.raises(ValueError, match=r"conv_in\.bias holds NaN"):
        load_prior(network)


OF_OLD = {"_diffusers_version": "0.0.4", "act_fn": "silu", "center_input_sample": False, "downsample_padding": 1,
          "flip_sin_to_cos": True, "freq_shift": 0, "layers_per_block": 2, "mid_block_scale_factor": 1,
          "norm_eps": 1e-5, "norm_num_groups": 32}  # fmt: skip
DDPM_256 = {
    **OF_OLD, "_class_name": "UNet2DModel", "attention_head_dim": None, "sample_size": 256, "in_channels": 3,
    "out_channels": 3, "block_out_channels": [128, 128, 256, 256, 512, 512], "time_embedding_type": "positional",
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4, "norm_eps": 1e-6, "freq_shift": 1,
    "flip_sin_to_cos": False, "downsample_padding": 0,
}  # fmt: skip
SD_15_UNET = {
    **OF_OLD, "_class_name": "UNet2DConditionModel", "attention_head_dim": 8, "cross_attention_dim": 768,
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
SD_15_VAE = {
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu", "in_channels": 3,
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "latent_channels": 4,
    "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
LDM_UNET = {
    **OF_OLD, "_class_name": "UNet2DModel", "attention_head_dim": 32, "sample_size": 64, "in_channels": 3,
    "out_channels": 3, "block_out_channels": [224, 448, 672, 896], "time_embedding_type": "positional",
    "down_block_types": ["DownBlock2D"] + ["AttnDownBlock2D"] * 3,
    "up_block_types": ["AttnUpBlock2D"] * 3 + ["UpBlock2D"],
}  # fmt: skip
LDM_VQVAE = {
    "_class_name": "VQModel", "_diffusers_version": "0.1.2", "act_fn": "silu", "block_out_channels": [128, 256, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 3, "in_channels": 3, "latent_channels": 3, "layers_per_block": 2,
    "num_vq_embeddings": 8192, "out_channels": 3, "sample_size": 256, "up_block_types": ["UpDecoderBlock2D"] * 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(DDPM_256, 113673219), (SD_15_UNET, 859520964), (SD_15_VAE, 83653863), (LDM_UNET, 274056163), (LDM_VQVAE, 0)],
    ids=["ddpm-256", "stable-diffusion-v1-5", "its autoencoder", "ldm-celebahq-256", "its autoencoder"],
)  # fmt: skip
def test_published_networks(config: dict[str, Any], parameters: int) -> None:
    """Without their numbers, which would take gigabytes."""
    kind = getattr(diffusers, config["_class_name"])
    settings = check_settings(config, kind, "config.json")
    with torch.device("meta"):
        state = kind(**settings).state_dict()
    check_depth(settings, state, "config.json")
    network = build_network(lambda: kind(**settings), state, "folder")
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == (parameters or found)


# Weights as they are stored.


def test_a_network_in_the_words_of_old_diffusers(pixels: Path) -> None:
    expected, state = load_prior(pixels), load_file(pixels / WEIGHTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    (pixels / WEIGHTS).unlink()
    torch.save(state, pixels / "diffusion_pytorch_model.bin")
    assert load_prior(pixels).fingerprint == expected.fingerprint
    state[next(key for key in state if "query" in key).replace("query", "to_q")] = torch.zeros(16, 16)
    torch.save(state, pixels / "diffusion_pytorch_model.bin")
    refused(pixels, "two keys are the same weight")


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_shards(safe: bool, pixels: Path) -> None:
    expected = load_prior(pixels)
    (pixels / WEIGHTS).unlink()
    unet().save_pretrained(pixels, max_shard_size="20KB", safe_serialization=safe)
    extension = "safetensors" if safe else "bin"
    index = pixels / f"diffusion_pytorch_model.{extension}.index.json"
    shards = sorted(pixels.glob(f"*-of-*.{extension}"))
    assert len(shards) > 1 and load_prior(pixels).fingerprint == expected.fingerprint
    shards[0].rename(pixels / "away")
    refused(pixels, f"{shards[0].name}: no such file")
    for faulty in ({}, [], {"a.b": 3}, {"a.b": "../away"}, {"a.b": "a\nb"}):
        index.write_text(json.dumps({"weight_map": faulty}))
        refused(pixels, "has no weight_map of keys to files beside it")


@pytest.mark.parametrize("safe", [True, False])
def test_the_variant_in_half_precision_alone(safe: bool, prompted: Path) -> None:
    """Under the names that diffusers and transformers give it."""
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (prompted / part).glob("*.safetensors")
        state = {key: value.half() for key, value in load_file(file).items()}
        file.unlink()
        stem = file.stem if safe or part != "text_encoder" else "pytorch_model"
        (save_file if safe else torch.save)(state, file.with_name(f"{stem}.fp16.{'safetensors' if safe else 'bin'}"))
    prior = load_prior(prompted)
    assert isinstance(prior, LatentPrior) and prior.empty is not None
    assert {p.dtype for network in prior.networks() for p in network.parameters()} == {torch.float32}
    with torch.no_grad():
        eps = prior.predict(torch.randn(1, 4, 8, 8), 10).eps
    assert eps.isfinite().all() and prior.empty.dtype == torch.float32


def test_full_precision_goes_before_its_variant(pixels: Path) -> None:
    expected = load_prior(pixels).fingerprint
    save_file({"a.b": torch.zeros(1)}, pixels / "diffusion_pytorch_model.fp16.safetensors")
    assert load_prior(pixels).fingerprint == expected
    (pixels / WEIGHTS).unlink()
    refused(pixels, "2 blocks do not fit to 1 tensors")
    (pixels / "diffusion_pytorch_model.fp16.safetensors").unlink()
    refused(pixels, "holds no weights: diffusion_pytorch_model.safetensors or")


@torch.no_grad()
def test_a_network_of_a_folder_computes_what_diffusers_does(prompted: Path) -> None:
    prior = load_prior(prompted)
    z, prompt = torch.randn(1, 4, 8, 8), CLIPTextModel.from_pretrained(prompted / "text_encoder").eval()
    empty = prompt(torch.tensor([[49406, 49407, *[49407] * 75]])).last_hidden_state
    torch.testing.assert_close(prior.empty, empty)
    network = UNet2DConditionModel.from_pretrained(prompted / "unet").eval()
    torch.testing.assert_close(prior.predict(z, 9).eps, network(z, 9, empty).sample)


def test_names_of_layers_where_levels_have_different_numbers_of_blocks() -> None:
    assert checkpoint_name("down_blocks.2.attentions.1", [1, 3, 2]) == "input_blocks.8.1"
    assert checkpoint_name("up_blocks.1.attentions.0", [1, 3, 2]) == "output_blocks.3.1"
    assert checkpoint_name("down_blocks.2.attentions.1", 2) == "input_blocks.8.1"


def test_tokenizers_that_are_none(prompted: Path) -> None:
    """Found where a prompt needs one."""
    prior, folder = load_prior(prompted), prompted / "tokenizer"
    folder.mkdir()
    for files in ({}, {"vocab.json": "[]"}, {"vocab.json": "{", "merges.txt": ""}, {"tokenizer.json": "\0"}, {"x": ""}):
        for name, content in files.items():
            (folder / name).write_text(content)
        with pytest.raises(ValueError, match=r"tokenizer (cannot be loaded; a prompt needs it|has \d+ words)") as error:
            prompt_of(prior, "a cat")
        assert "\n" not in str(error.value)
    (folder / "vocab.json").unlink()
    os.mkfifo(folder / "vocab.json")
    with pytest.raises(ValueError, match="a pipe or a device"):
        prompt_of(prior, "a cat")


# Arguments.


def test_arguments_without_effect_are_refused(pixels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "arguments.json").write_text('{"num_heads": 4}')
    for name in ("pixel", "latent"):
        with pytest.raises(ValueError, match="config is given but"):
            load_prior(name, config=tmp_path / "arguments.json")
        for option in ({"weights_dir": tmp_path}, {"download": True}):
            with pytest.raises(ValueError, match=f"{next(iter(option))} is given but prior {name} comes with"):
                load_prior(name, **option)
    with pytest.raises(ValueError, match=r"config is given but .* is a folder"):
        load_prior(pixels, config=tmp_path / "arguments.json")
    for option in ({"weights_dir": tmp_path}, {"download": True}):
        with pytest.raises(ValueError, match=r"is given but .* is a path"):
            load_prior(pixels, **option)
    monkeypatch.setenv("PAG_INVERSE_WEIGHTS", str(tmp_path))
    assert isinstance(load_prior(pixels), PixelPrior) and load_prior("pixel").name == "pixel"


def test_float16_is_for_other_devices(pixels: Path) -> None:
    for source in ("pixel", pixels, unet(), unet().half()):
        options = {} if isinstance(source, UNet2DModel) and source.dtype == torch.float16 else {"precision": "float16"}
        with pytest.raises(ValueError, match="float16 is too slow on a processor; there is bfloat16"):
            load_prior(source, **options)
    assert load_prior(unet().half(), precision="bfloat16").unet.dtype == torch.bfloat16
