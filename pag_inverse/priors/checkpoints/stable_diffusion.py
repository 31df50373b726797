"""Stable Diffusion 1.x and 2.x in one file under the original (LDM) key names, without any network access.

Widths and depths are read off the tensor shapes; the rest is the known configuration of the two families: 1.x has
8 heads at every level, convolutions around its transformers and CLIP ViT-L's text encoder; 2.x has heads of 64
channels, linear layers there and the penultimate layer of OpenCLIP ViT-H. The keys are renamed by diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from torch import Tensor

from pag_inverse.priors.checkpoints.files import first_line, one_line, read_settings
from pag_inverse.priors.checkpoints.text_encoder import empty_prompt_tokens
from pag_inverse.priors.latent import LatentPrior
from pag_inverse.schedule import BETAS

State = Mapping[str, Tensor]
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
OPEN_CLIP, EMA = "cond_stage_model.model.", "model_ema."
# What such files hold beside their networks: the schedule's tables, the moving average's own, buffers of encoders.
SCHEDULE = re.compile(r"(betas|lvlb_weights|logvar|global_step|.*alphas_cumprod.*|posterior_\w+)")
IGNORED = re.compile(rf"{EMA}.*|.*\.position_ids|cond_stage_model\.(model\.)?(logit_scale|text_projection|attn_mask)")
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
        unet = _build(UNet2DConditionModel, _unet_config(_part(state, UNET)), _unet_state(state), UNET)
        vae = _build(AutoencoderKL, _vae_config(_part(state, VAE)), _vae_state(state), VAE)
        predicted = _prediction(config, prediction)
        if predicted is None:
            predicted = stable_diffusion_prediction(path, unet)
        empty = _empty_prompt(state, unet)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    size = 768 if predicted == "v_prediction" and unet.config.use_linear_projection else 512
    betas = BETAS["scaled_linear"]()
    return LatentPrior(unet, vae, betas, empty=empty, image_size=size, prediction=predicted)


def stable_diffusion_prediction(path: Path, unet: Any) -> str:
    """epsilon for 1.x; ValueError for 2.x, whose two kinds have the same shapes."""
    if not unet.config.use_linear_projection:
        return "epsilon"
    raise ValueError(
        f"{path}: Stable Diffusion 2.x comes in two kinds of the same shapes: give --prediction epsilon (2-base and "
        "2.1-base, 512 px) or v_prediction (2 and 2.1, 768 px)"
    )


def _prediction(config: Path | None, given: str | None) -> str | None:
    """What the flag says, or the original YAML; both may, if they agree."""
    if config is None:
        return given
    model = read_settings(config).get("model")
    params = model.get("params") if isinstance(model, Mapping) else None
    if not isinstance(params, Mapping):
        raise ValueError(f"{config} is no original config of Stable Diffusion: it has no model.params")
    parameterization = params.get("parameterization", "eps")  # the original's default
    if parameterization not in PARAMETERIZATIONS:
        known = " and ".join(PARAMETERIZATIONS)
        raise ValueError(f"{config}: parameterization {parameterization!r}; supported are {known}")
    found = PARAMETERIZATIONS[parameterization]
    if given not in (None, found):
        raise ValueError(f"{config} says {found}, not {given}: one of them is wrong")
    return found


def _check_kind(state: State) -> None:
    if any(key.startswith("conditioner.") for key in state):
        raise ValueError("Stable Diffusion XL or a refiner; supported are 1.x and 2.x")
    first = _shape(state, f"{UNET}input_blocks.0.0.weight")
    if first[1] != 4:
        raise ValueError(f"{first[1]} input channels, not 4: it is no model for text to image")
    if f"{UNET}label_emb.0.0.weight" in state or f"{UNET}label_emb.weight" in state:
        raise ValueError("a class embedding (label_emb): models for upscaling or variations are not supported")
    known = (UNET, VAE, CLIP, OPEN_CLIP)
    foreign = [k for k in state if not k.startswith(known) and not SCHEDULE.fullmatch(k) and not IGNORED.fullmatch(k)]
    if foreign:
        raise ValueError(f"no Stable Diffusion checkpoint: unknown key {foreign[0]}")


def _check_betas(state: State) -> None:
    if "betas" in state and not np.allclose(state["betas"].float().numpy(), BETAS["scaled_linear"](), atol=1e-5):
        raise ValueError("its betas are not Stable Diffusion's (scaled_linear, 0.00085 to 0.012)")


def _build(kind: Any, config: dict[str, Any], state: dict[str, Tensor], prefix: str) -> Any:
    """A network of diffusers with these weights; ValueError where a key is missing or left over or a shape differs."""
    with torch.device("meta"):
        network = kind(**config)
    try:
        network.load_state_dict({k: v.float() for k, v in state.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{prefix}* are not the weights of one {kind.__name__}: {one_line(error)}") from error
    return network


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
    inputs = 1 + max((int(k.split(".")[1]) for k in state if k.startswith("input_blocks.")), default=0)
    downs = sorted(int(k.split(".")[1]) for k in state if re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", k))
    layers = downs[0] - 1 if downs else inputs - 1
    levels, rest = divmod(inputs, layers + 1)
    if rest or layers < 1:
        raise ValueError(f"no Stable Diffusion U-Net: {inputs} input blocks")
    firsts = [1 + level * (layers + 1) for level in range(levels)]
    widths = tuple(_shape(state, f"input_blocks.{i}.0.out_layers.3.weight")[0] for i in firsts)
    attention = [f"input_blocks.{i}.1.proj_in.weight" in state for i in firsts]
    block = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    linear = len(_shape(state, "middle_block.1.proj_in.weight")) == 2
    return dict(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=layers,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        cross_attention_dim=_shape(state, block)[1],
        attention_head_dim=tuple(width // 64 for width in widths) if linear else 8,
        use_linear_projection=linear,
    )


def _unet_state(state: State) -> dict[str, Tensor]:
    source = _averaged(state)
    layers = _unet_config(_part(state, UNET))["layers_per_block"]
    found = single_file_utils.convert_ldm_unet_checkpoint(source, {"layers_per_block": layers})
    return _all_placed(source, found)


def _vae_config(state: State) -> dict[str, Any]:
    """The arguments of diffusers' autoencoder."""
    levels = 1 + max((int(k.split(".")[2]) for k in state if k.startswith("encoder.down.")), default=-1)
    widths = tuple(_shape(state, f"encoder.down.{i}.block.0.conv1.weight")[0] for i in range(levels))
    return dict(
        sample_size=512,
        block_out_channels=widths,
        layers_per_block=len([k for k in state if re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", k)]),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=_shape(state, "decoder.conv_in.weight")[1],
        scaling_factor=0.18215,
    )


def _vae_state(state: State) -> dict[str, Tensor]:
    source = {key: value for key, value in state.items() if key.startswith(VAE)}
    for key, value in source.items():
        if ".mid.attn_1." in key and value.ndim == 4:  # a convolution of 1 x 1 is a linear layer
            source[key] = value[:, :, 0, 0]
    levels = len(_vae_config(_part(state, VAE))["down_block_types"])
    blocks = {"down_block_types": [None] * levels, "up_block_types": [None] * levels}
    return _all_placed(source, single_file_utils.convert_ldm_vae_checkpoint(source, blocks))


def _all_placed(source: State, converted: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was converted, if that is every tensor of the source: diffusers drops what it does not know."""
    placed = {id(value) for value in converted.values()}
    dropped = [key for key, value in source.items() if id(value) not in placed]
    if dropped:
        raise ValueError(f"unknown key {dropped[0]}")
    return converted


@torch.no_grad()
def _empty_prompt(state: State, unet: Any) -> Tensor:
    """The embedding (1, 77, D) of the empty prompt."""
    width = unet.config.cross_attention_dim
    if unet.config.use_linear_projection:
        encoder, pad = _text_encoder(_open_clip_state(state), "gelu", OPEN_CLIP), 0
    else:
        source = {key: value for key, value in state.items() if key.startswith(CLIP)}
        encoder, pad = _text_encoder(single_file_utils.convert_ldm_clip_checkpoint(source), "quick_gelu", CLIP), 49407
    found = encoder(torch.tensor([empty_prompt_tokens(pad)])).last_hidden_state.float()
    if found.shape[-1] != width:
        raise ValueError(f"its text encoder is {found.shape[-1]} wide, its U-Net wants {width}")
    return found


def _open_clip_state(state: State) -> dict[str, Tensor]:
    """CLIP's keys from OpenCLIP's, without the last block: 2.x takes what the one before it says."""
    blocks = [int(found[1]) for key in state if (found := re.match(rf"{re.escape(OPEN_CLIP)}.*resblocks\.(\d+)", key))]
    if not blocks:
        raise ValueError(f"no text encoder: no key {OPEN_CLIP}transformer.resblocks")
    inner, ends = f"{OPEN_CLIP}transformer.", ("positional_embedding", "token_embedding.weight", "ln_final.")
    kept = {k: v for k, v in state.items() if k.startswith(OPEN_CLIP) and not IGNORED.fullmatch(k)}
    foreign = [k for k in kept if not k.startswith((inner, *(OPEN_CLIP + end for end in ends)))]
    if foreign:
        raise ValueError(f"unknown key {foreign[0]}")
    kept = {k: v for k, v in kept.items() if not k.startswith(f"{inner}resblocks.{max(blocks)}.")}
    width = _shape(state, f"{OPEN_CLIP}ln_final.weight")[0]
    kept[f"{OPEN_CLIP}text_projection"] = torch.empty(width, width)  # its size is how the fused weights are split
    return single_file_utils.convert_open_clip_checkpoint(None, kept, prefix=OPEN_CLIP)


def _text_encoder(state: dict[str, Tensor], activation: str, prefix: str) -> Any:
    """CLIP's text model; heads of 64 channels."""
    from transformers import CLIPTextConfig, CLIPTextModel

    state = {k: v.float() for k, v in state.items() if not k.endswith("position_ids")}
    layers = [int(k.split(".")[3]) for k in state if k.startswith("text_model.encoder.layers.")]
    words = _shape(state, "text_model.embeddings.token_embedding.weight")
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words[0],
            hidden_size=words[1],
            intermediate_size=_shape(state, "text_model.encoder.layers.0.mlp.fc1.weight")[0],
            num_hidden_layers=1 + max(layers),
            num_attention_heads=max(words[1] // 64, 1),
            max_position_embeddings=_shape(state, "text_model.embeddings.position_embedding.weight")[0],
            hidden_act=activation,
        )
    ).eval()
    if not hasattr(encoder, "text_model"):  # newer transformers have flat names
        state = {key.removeprefix("text_model."): value for key, value in state.items()}
    try:
        encoder.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{prefix}*: no text encoder of Stable Diffusion: {first_line(error)}") from error
    return encoder


def _shape(state: State, key: str) -> tuple[int, ...]:
    if key not in state:
        raise ValueError(f"no Stable Diffusion checkpoint: key {key} is missing")
    return tuple(state[key].shape)
