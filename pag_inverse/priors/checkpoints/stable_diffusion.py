"""Stable Diffusion 1.x and 2.x in one file under the original (LDM) key names, without any network access.

Widths and depths are read off the tensor shapes; the rest is the known configuration of the two families: 1.x has
8 heads at every level, convolutions around its transformers and CLIP ViT-L's text encoder; 2.x has heads of 64
channels, linear layers there and the penultimate layer of OpenCLIP ViT-H. The keys are renamed by diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from torch import Tensor

from operators.validation import short
from pag_inverse.priors.checkpoints.construction import build_network
from pag_inverse.priors.checkpoints.files import as_float32, one_line, read_settings
from pag_inverse.priors.checkpoints.state_dicts import indices, shape_of
from pag_inverse.priors.checkpoints.text_encoder import build_text_encoder, embed, empty_prompt_tokens
from pag_inverse.priors.latent import LatentPrior
from pag_inverse.schedule import BETAS

State = Mapping[str, Tensor]
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
OPEN_CLIP, EMA = "cond_stage_model.model.", "model_ema."
# What such files hold beside their networks: the schedule's tables, the moving average's own, buffers of encoders.
SCHEDULE = re.compile(r"(betas|lvlb_weights|logvar|global_step|.*alphas_cumprod.*|posterior_\w+)")
IGNORED = re.compile(rf"{EMA}.*|.*\.position_ids|cond_stage_model\.(model\.)?(logit_scale|text_projection|attn_mask)")
# What the original YAML can say of the chain and the latents; other values are other models.
_ORIGINAL = {  # its linear schedule is linear in the square root
    "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "beta_schedule": "linear",
    "scale_factor": 0.18215, "scale_by_std": False, "channels": 4, "conditioning_key": "crossattn",
}  # fmt: skip
PARAMETERIZATIONS = {"eps": "epsilon", "v": "v_prediction"}


def is_latent_diffusion(state: State) -> bool:
    """Whether a state dict is a latent diffusion model under the original key names."""
    return any(key.startswith((UNET, VAE, "cond_stage_model.", "conditioner.")) for key in state)


def load_stable_diffusion(path: Path, state: State, config: Path | None, prediction: str | None) -> LatentPrior:
    """The prior of a single file; float32, every key in its place, the moving average of the weights where it is held.

    `prediction` or `config`, the original YAML with its `parameterization`, must say what 2.x predicts. ValueError
    where a key is missing or left over, where a shape differs, or where it is another model: inpainting, depth, XL.
    """
    try:
        _check_kind(state)
        _check_betas(state)
        used = _used(state)
        settings = _unet_config(_part(used, UNET))
        linear = settings["use_linear_projection"]
        predicted = _prediction(config, prediction, linear) or stable_diffusion_prediction(path, linear)
        vae_settings = _vae_config(_part(used, VAE))
        if (channels := vae_settings["latent_channels"]) != 4:
            raise ValueError(f"an autoencoder of {channels} latent channels, not 4")
        unet = build_network(lambda: UNet2DConditionModel(**settings), _unet_state(used), f"{UNET}*")
        vae = build_network(lambda: AutoencoderKL(**vae_settings), _vae_state(used), f"{VAE}*")
        empty = _empty_prompt(used, unet)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    size = 768 if predicted == "v_prediction" and linear else 512
    return LatentPrior(unet, vae, BETAS["scaled_linear"](), empty=empty, image_size=size, prediction=predicted)


def stable_diffusion_prediction(path: Path, linear: bool) -> str:
    """epsilon for 1.x; ValueError for 2.x (`linear` layers in transformers), whose two kinds have the same shapes."""
    if not linear:
        return "epsilon"
    raise ValueError(
        f"{path}: Stable Diffusion 2.x comes in two kinds of the same shapes: give --prediction epsilon (2-base and "
        "2.1-base, 512 px) or v_prediction (2 and 2.1, 768 px)"
    )


def _prediction(config: Path | None, given: str | None, linear: bool) -> str | None:
    """What the flag says, or the original YAML; both may, if they agree."""
    if config is None:
        return given
    params = _mapping(_mapping(read_settings(config), "model"), "params")
    if not params:
        raise ValueError(f"{config} is no original config of Stable Diffusion: it has no model.params")
    heads = {"num_head_channels": 64} if linear else {"num_heads": 8}
    network = _mapping(_mapping(params, "unet_config"), "params")
    for name, needed in {**_ORIGINAL, **heads}.items():
        value = (network if name in heads else params).get(name, needed)
        if value != needed or isinstance(value, bool) != isinstance(needed, bool):
            raise ValueError(f"{config}: {name} is {short(value)}; supported is {needed}")
    parameterization = params.get("parameterization", "eps")  # the original's default
    found = PARAMETERIZATIONS.get(parameterization) if isinstance(parameterization, str) else None
    if found is None:
        known = " and ".join(PARAMETERIZATIONS)
        raise ValueError(f"{config}: parameterization {short(parameterization)}; supported are {known}")
    if given not in (None, found):
        raise ValueError(f"{config} says {found}, not {given}: one of them is wrong")
    return found


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _check_kind(state: State) -> None:
    if any(key.startswith("conditioner.") for key in state):
        raise ValueError("Stable Diffusion XL or a refiner; supported are 1.x and 2.x")
    first = shape_of(state, f"{UNET}input_blocks.0.0.weight", 4)
    if first[1] != 4:
        raise ValueError(f"{first[1]} input channels, not 4: it is no model for text to image")
    if f"{UNET}label_emb.0.0.weight" in state or f"{UNET}label_emb.weight" in state:
        raise ValueError("a class embedding (label_emb): models for upscaling or variations are not supported")
    known = (UNET, VAE, CLIP, OPEN_CLIP)
    foreign = [k for k in state if not k.startswith(known) and not SCHEDULE.fullmatch(k) and not IGNORED.fullmatch(k)]
    if foreign:
        raise ValueError(f"no Stable Diffusion checkpoint: unknown key {foreign[0]}")


def _check_betas(state: State) -> None:
    if "betas" not in state:
        return
    found = as_float32({"betas": state["betas"]})["betas"].numpy()
    rounding = torch.finfo(state["betas"].dtype).eps
    expected = BETAS["scaled_linear"]()
    if found.shape != expected.shape or not np.allclose(found, expected, atol=1e-5, rtol=rounding):
        raise ValueError("its betas are not Stable Diffusion's (scaled_linear, 0.00085 to 0.012)")


def _used(state: State) -> dict[str, Tensor]:
    """The tensors of the networks in float32; the moving average of the U-Net where it is held."""
    others = {k: v for k, v in state.items() if k.startswith((VAE, CLIP, OPEN_CLIP)) and not IGNORED.fullmatch(k)}
    return as_float32({**_averaged(state), **others})


def _converted(convert: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Tensor]:
    """The tensors under diffusers' names."""
    try:
        found: dict[str, Tensor] = convert(*args, **options)
    except Exception as error:  # diffusers' converters raise anything on keys and shapes that are not theirs
        raise ValueError(f"no keys of Stable Diffusion: {one_line(error)}") from error
    return found


def _part(state: State, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _averaged(state: State) -> dict[str, Tensor]:
    """The U-Net's weights: their moving average, which a file may hold beside the last ones under flat names."""
    last = {key: value for key, value in state.items() if key.startswith(UNET)}
    if not any(key.startswith(f"{EMA}diffusion_model") for key in state):
        return last
    flat = {key: EMA + key.removeprefix("model.").replace(".", "") for key in last}
    missing = [name for name in flat.values() if name not in state]
    if missing:
        raise ValueError(f"key {missing[0]} is missing: only a part of the moving average is held")
    return {key: state[name] for key, name in flat.items()}


def _unet_config(state: State) -> dict[str, Any]:
    """The arguments of diffusers' U-Net."""
    inputs = 1 + max(indices(state, r"input_blocks\.(\d{1,2})\."), default=0)
    downs = indices(state, r"input_blocks\.(\d{1,2})\.0\.op\.weight")
    layers = downs[0] - 1 if downs else inputs - 1
    levels, rest = divmod(inputs, layers + 1)
    if rest or layers < 1:
        raise ValueError(f"no Stable Diffusion U-Net: {inputs} input blocks")
    firsts = [1 + level * (layers + 1) for level in range(levels)]
    widths = tuple(shape_of(state, f"input_blocks.{i}.0.out_layers.3.weight", 4)[0] for i in firsts)
    attention = [f"input_blocks.{i}.1.proj_in.weight" in state for i in firsts]
    block = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    linear = state.get("middle_block.1.proj_in.weight", torch.empty(0)).ndim == 2
    return dict(
        sample_size=64, in_channels=4, out_channels=4, block_out_channels=widths, layers_per_block=layers,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        cross_attention_dim=shape_of(state, block, 2)[1], use_linear_projection=linear,
        attention_head_dim=tuple(width // 64 for width in widths) if linear else 8,
    )  # fmt: skip


def _unet_state(state: State) -> dict[str, Tensor]:
    source = {key: value for key, value in state.items() if key.startswith(UNET)}
    layers = _unet_config(_part(state, UNET))["layers_per_block"]
    convert = single_file_utils.convert_ldm_unet_checkpoint
    return _all_placed(source, _converted(convert, source, {"layers_per_block": layers}))


def _vae_config(state: State) -> dict[str, Any]:
    """The arguments of diffusers' autoencoder."""
    levels = 1 + max(indices(state, r"encoder\.down\.(\d{1,2})\."), default=-1)
    widths = tuple(shape_of(state, f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels))
    return dict(
        sample_size=512, block_out_channels=widths, scaling_factor=0.18215,
        layers_per_block=len(indices(state, r"encoder\.down\.0\.block\.(\d{1,2})\.conv1\.weight")),
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=shape_of(state, "decoder.conv_in.weight", 4)[1],
    )  # fmt: skip


def _vae_state(state: State) -> dict[str, Tensor]:
    source = {key: value for key, value in state.items() if key.startswith(VAE)}
    for key, value in source.items():
        if ".mid.attn_1." in key and value.ndim == 4:  # a convolution of 1 x 1 is a linear layer
            source[key] = value[:, :, 0, 0]
    levels = len(_vae_config(_part(state, VAE))["down_block_types"])
    blocks = {"down_block_types": [None] * levels, "up_block_types": [None] * levels}
    return _all_placed(source, _converted(single_file_utils.convert_ldm_vae_checkpoint, source, blocks))


def _all_placed(source: State, converted: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was converted, if that is every tensor of the source: diffusers drops what it does not know."""
    placed = {id(value) for value in converted.values()}
    dropped = [key for key, value in source.items() if id(value) not in placed]
    if dropped:
        raise ValueError(f"unknown key {dropped[0]}")
    return converted


def _empty_prompt(state: State, unet: Any) -> Tensor:
    """The embedding (1, 77, D) of the empty prompt."""
    width = unet.config.cross_attention_dim
    if unet.config.use_linear_projection:
        prefix, pad, renamed = OPEN_CLIP, 0, _open_clip_state(state)
    else:
        source = {key: value for key, value in state.items() if key.startswith(CLIP)}
        prefix, pad, renamed = CLIP, 49407, _converted(single_file_utils.convert_ldm_clip_checkpoint, source)
    encoder = _text_encoder(renamed, "gelu" if prefix == OPEN_CLIP else "quick_gelu", prefix)
    found = embed(encoder, torch.tensor([empty_prompt_tokens(pad)]))
    if found.shape[-1] != width:
        raise ValueError(f"its text encoder is {found.shape[-1]} wide, its U-Net wants {width}")
    return found


def _open_clip_state(state: State) -> dict[str, Tensor]:
    """CLIP's keys from OpenCLIP's, without the last block: 2.x takes what the one before it says."""
    blocks = indices(state, rf"{re.escape(OPEN_CLIP)}transformer\.resblocks\.(\d{{1,2}})\.")
    if not blocks:
        raise ValueError(f"no text encoder: no key {OPEN_CLIP}transformer.resblocks")
    inner, ends = f"{OPEN_CLIP}transformer.", ("positional_embedding", "token_embedding.weight", "ln_final.")
    kept = {k: v for k, v in state.items() if k.startswith(OPEN_CLIP)}
    foreign = [k for k in kept if not k.startswith((inner, *(OPEN_CLIP + end for end in ends)))]
    if foreign:
        raise ValueError(f"unknown key {foreign[0]}")
    kept = {k: v for k, v in kept.items() if not k.startswith(f"{inner}resblocks.{max(blocks)}.")}
    width = shape_of(state, f"{OPEN_CLIP}ln_final.weight", 1)[0]
    kept[f"{OPEN_CLIP}text_projection"] = torch.empty(width, width)  # its size is how the fused weights are split
    return _converted(single_file_utils.convert_open_clip_checkpoint, None, kept, prefix=OPEN_CLIP)


def _text_encoder(state: dict[str, Tensor], activation: str, prefix: str) -> Any:
    """CLIP's text model; heads of 64 channels."""
    embeddings = {key.removeprefix("text_model."): value for key, value in state.items()}
    words = shape_of(embeddings, "embeddings.token_embedding.weight", 2)
    settings = {
        "vocab_size": words[0], "hidden_size": words[1], "num_attention_heads": max(words[1] // 64, 1),
        "intermediate_size": shape_of(embeddings, "encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": 1 + max(indices(embeddings, r"encoder\.layers\.(\d{1,2})\.")),
        "max_position_embeddings": shape_of(embeddings, "embeddings.position_embedding.weight", 2)[0],
        "hidden_act": activation,
    }  # fmt: skip
    return build_text_encoder(settings, embeddings, f"{prefix}*, the text encoder,")
