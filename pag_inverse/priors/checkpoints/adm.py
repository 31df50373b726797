"""OpenAI-ADM checkpoints as diffusers' UNet2DModel: the layout read off the tensor shapes, and the key map."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pag_inverse.priors.checkpoints.adm_arguments import AdmArguments, read_arguments
from pag_inverse.priors.checkpoints.construction import build_network
from pag_inverse.priors.checkpoints.files import as_float32
from pag_inverse.priors.checkpoints.state_dicts import indices, shape_of

if TYPE_CHECKING:
    from diffusers import UNet2DModel

State = Mapping[str, Tensor]
TIME = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}
ENDS = {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out", "label_emb": "class_embedding"}
LABELS = "label_emb.weight"
RESBLOCK = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut", "op": "conv", "conv": "conv",
}  # fmt: skip
ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}
# ADM's own default multipliers of the width, by the side of the pictures.
CHANNEL_MULT = {
    512: (0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0), 256: (1.0, 1.0, 2.0, 2.0, 4.0, 4.0),
    128: (1.0, 1.0, 2.0, 3.0, 4.0), 64: (1.0, 2.0, 3.0, 4.0),
}  # fmt: skip


@dataclass(frozen=True)
class AdmLayout:
    """The layout of an ADM U-Net; `head_channels` and `new_attention_order` cannot be read off the shapes.

    `classes` is the number of classes of a class-conditional network, 0 for an unconditional one.
    """

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    middle_attention: bool
    resblock_updown: bool
    scale_shift: bool
    head_channels: int = 64
    new_attention_order: bool = False
    classes: int = 0


def load_adm(
    path: Path,
    state: State,
    *,
    head_channels: int = 64,
    config: Path | None = None,
    class_conditional: bool = False,
) -> tuple[UNet2DModel, int]:
    """The U-Net of an ADM state dict and its image size in pixels; `path` names it in messages.

    `config` is a file of ADM's own arguments, which say what the tensors do not: the attention heads, and an image
    size other than 256. `head_channels` is the width of a head where the file does not say. A network that needs a
    class label (`label_emb`) is refused unless `class_conditional`.
    """
    from diffusers import UNet2DModel

    arguments = read_arguments(config) if config else AdmArguments()
    try:
        state = _without_prefix(state)
        _check_is_adm(state, class_conditional)
        state = as_float32(state)
        heads = arguments.head_channels(state, head_channels)
        layout = read_layout(state, heads, arguments.use_new_attention_order)
        check_arguments(arguments, layout)
        image_size = arguments.image_size or 256
        settings = unet_config(layout, image_size)
        return build_network(lambda: UNet2DModel(**settings), convert_state(state, layout), "a U-Net"), image_size
    except ValueError as error:
        beside = f" ({config})" if config else ""
        raise ValueError(f"{path}{beside}: {error}") from error


def read_layout(state: State, head_channels: int = 64, new_attention_order: bool = False) -> AdmLayout:
    """Read an ADM's layout off the keys and shapes of its state dict; ValueError where it is none."""
    inputs = 1 + max(indices(state, r"input_blocks\.(\d{1,2})\."))
    blocks = _blocks_a_level(state, inputs)
    levels, rest = divmod(inputs, blocks + 1)
    if rest:
        raise ValueError(f"no ADM U-Net: {inputs} input blocks do not make levels of {blocks} + 1")
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    widths = tuple(shape_of(state, f"input_blocks.{i}.0.out_layers.3.weight", 4)[0] for i in firsts)
    layout = AdmLayout(
        in_channels=shape_of(state, "input_blocks.0.0.weight", 4)[1],
        out_channels=shape_of(state, "out.2.weight", 4)[0], widths=widths, blocks=blocks,
        attention=tuple(f"input_blocks.{i}.1.qkv.weight" in state for i in firsts),
        middle_attention="middle_block.1.qkv.weight" in state,
        resblock_updown=not any(".op." in k for k in state),
        scale_shift=shape_of(state, "input_blocks.1.0.emb_layers.1.weight", 2)[0] == 2 * widths[0],
        head_channels=head_channels, new_attention_order=new_attention_order,
        classes=shape_of(state, LABELS, 2)[0] if LABELS in state else 0,
    )  # fmt: skip
    _check_representable(state, layout)
    return layout


def check_arguments(arguments: AdmArguments, layout: AdmLayout) -> None:
    """ValueError where an argument contradicts the layout that the tensors have."""
    learned, given = layout.out_channels == 2 * layout.in_channels, arguments.model_var_type
    _compare("class_cond", arguments.class_cond, layout.classes > 0)
    _compare("num_channels", arguments.num_channels, layout.widths[0])
    _compare("num_res_blocks", arguments.num_res_blocks, layout.blocks)
    _compare("use_scale_shift_norm", arguments.use_scale_shift_norm, layout.scale_shift)
    _compare("resblock_updown", arguments.resblock_updown, layout.resblock_updown)
    _compare("learn_sigma", arguments.learn_sigma, learned)
    _compare("model_var_type learned_range", None if given is None else given == "learned_range", learned)
    side = arguments.image_size or 256
    if arguments.channel_mult is not None:
        multipliers = tuple(width / layout.widths[0] for width in layout.widths)
        _compare("channel_mult", arguments.channel_mult or CHANNEL_MULT.get(side), multipliers)
    if (resolutions := arguments.attention_resolutions) is not None:
        attention = tuple(side / 2**level in resolutions for level in range(len(layout.widths)))
        where = f"attention_resolutions {resolutions} at image_size {side}: attention by level"
        _compare(where, attention, layout.attention)


def _compare(name: str, given: object, found: object) -> None:
    if given is not None and given != found:
        raise ValueError(f"{name} is {given}, but the tensors of the checkpoint say {found}")


def unet_config(layout: AdmLayout, image_size: int = 256) -> dict[str, Any]:
    """The arguments of the UNet2DModel that computes what this ADM computes."""
    down = {False: "DownBlock2D", True: "AttnDownBlock2D"}
    up = {False: "UpBlock2D", True: "AttnUpBlock2D"}
    if layout.resblock_updown:
        down[False], up[False] = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
    sampling = "resnet" if layout.resblock_updown else "conv"
    return dict(
        sample_size=image_size, in_channels=layout.in_channels, out_channels=layout.out_channels,
        block_out_channels=layout.widths, layers_per_block=layout.blocks,
        down_block_types=tuple(down[a] for a in layout.attention),
        up_block_types=tuple(up[a] for a in reversed(layout.attention)),
        downsample_type=sampling, upsample_type=sampling, add_attention=layout.middle_attention,
        attention_head_dim=layout.head_channels, norm_num_groups=32, attn_norm_num_groups=32, norm_eps=1e-5,
        resnet_time_scale_shift="scale_shift" if layout.scale_shift else "default",
        freq_shift=0, flip_sin_to_cos=True, num_class_embeds=layout.classes or None,
    )  # fmt: skip


def convert_state(state: State, layout: AdmLayout) -> dict[str, Tensor]:
    """The state dict in UNet2DModel's keys; legacy qkv tensors are split head by head."""
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        for target, part in _converted(key, value, layout):
            if target in converted:
                raise ValueError(f"no ADM U-Net: key {key} is the weight of another key too")
            converted[target] = part
    return converted


def _converted(key: str, value: Tensor, layout: AdmLayout) -> Iterator[tuple[str, Tensor]]:
    module, _, kind = key.rpartition(".")
    if module.endswith(".qkv"):
        target = _target(module.removesuffix(".qkv"), layout)
        for name, part in zip("qkv", _split_qkv(key, value, layout), strict=True):
            yield f"{target}.to_{name}.{kind}", part
    else:
        value = value.squeeze(-1) if module.endswith("proj_out") else value
        yield f"{_rename(module, layout)}.{kind}", value


def _without_prefix(state: State) -> State:
    """The state dict without the prefix, such as `model.`, that a wrapper put before every one of its names."""
    last = "time_embed.0.weight"
    prefixes = [key.removesuffix(last) for key in state if key.endswith(f".{last}")]
    if len(prefixes) != 1 or not all(key.startswith(prefixes[0]) for key in state):
        return state
    return {key.removeprefix(prefixes[0]): value for key, value in state.items()}


def _check_is_adm(state: State, class_conditional: bool) -> None:
    needed = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "out.2.weight")
    missing = [key for key in needed if key not in state]
    if missing:
        raise ValueError(f"no ADM U-Net: key {missing[0]} is missing")
    if odd := [key for key, value in state.items() if not 1 <= value.ndim <= 4]:
        raise ValueError(f"no ADM U-Net: key {odd[0]} has the shape {tuple(state[odd[0]].shape)}")
    if any(key.startswith("label_emb") for key in state) and not class_conditional:
        raise ValueError(
            "a class-conditional ADM (it has label_emb); an unconditional one is needed here: `sample` alone takes it"
        )


def _check_representable(state: State, layout: AdmLayout) -> None:
    base = shape_of(state, "time_embed.0.weight", 2)[1]
    if base != layout.widths[0]:
        raise ValueError(f"an ADM whose first level ({layout.widths[0]}) is not as wide as its base ({base})")
    if any(w % 32 for w in layout.widths):
        raise ValueError(f"an ADM of widths {layout.widths}; they must be multiples of 32")
    attended = [width for width, attention in zip(layout.widths, layout.attention, strict=True) if attention]
    if layout.head_channels < 1 or any(width % layout.head_channels for width in attended):
        raise ValueError(f"head_channels {layout.head_channels} does not divide the widths {layout.widths}")


def _blocks_a_level(state: State, inputs: int) -> int:
    """Residual blocks a level: the first upsampling sits in the last output block of the deepest level."""
    return min(indices(state, r"output_blocks\.(\d{1,2})\.[12]\.(in_layers|conv)\."), default=inputs - 1)


def _split_qkv(key: str, value: Tensor, layout: AdmLayout) -> Iterator[Tensor]:
    if value.shape[0] % (3 * layout.head_channels):
        raise ValueError(f"key {key} of shape {tuple(value.shape)} does not split into heads of {layout.head_channels}")
    value = value.squeeze(-1) if value.ndim == 3 else value
    width, rest = value.shape[0] // 3, tuple(value.shape[1:])
    if layout.new_attention_order:
        yield from value.split(width)
        return
    heads = value.reshape(-1, 3, layout.head_channels, *rest)
    for part in range(3):
        yield heads[:, part].reshape(width, *rest)


def _rename(module: str, layout: AdmLayout) -> str:
    fixed = {**TIME, **ENDS}
    if module in fixed:
        return fixed[module]
    prefix, inner = _split_module(module)
    return f"{_target(prefix, layout)}.{inner}"


def _split_module(module: str) -> tuple[str, str]:
    for table in (RESBLOCK, ATTENTION):
        for theirs, ours in table.items():
            if module.endswith(f".{theirs}"):
                return module.removesuffix(f".{theirs}"), ours
    raise ValueError(f"no ADM U-Net: unknown key {module}")


def _target(prefix: str, layout: AdmLayout) -> str:
    """The diffusers module of an ADM module such as `input_blocks.9.1`."""
    found = re.fullmatch(r"(input_blocks|output_blocks)\.(\d{1,3})\.(\d)|middle_block\.(\d)", prefix)
    if found is None:
        raise ValueError(f"no ADM U-Net: unknown module {prefix}")
    if found[4] is not None:
        return _middle(int(found[4]), layout)
    place = int(found[2]) - (found[1] == "input_blocks")
    block, layer = divmod(place, layout.blocks + 1)
    if not 0 <= block < len(layout.widths):
        raise ValueError(f"no ADM U-Net: unknown module {prefix}")
    if found[1] == "input_blocks":
        kind = "downsamplers.0" if layer == layout.blocks else _kind(found[3], layout.attention[block], layer)
        return f"down_blocks.{block}.{kind}"
    return f"up_blocks.{block}.{_kind(found[3], layout.attention[::-1][block], layer)}"


def _middle(index: int, layout: AdmLayout) -> str:
    second = 2 if layout.middle_attention else 1
    names = {0: "resnets.0", second: "resnets.1", **({1: "attentions.0"} if layout.middle_attention else {})}
    if index not in names:
        raise ValueError(f"no ADM U-Net: unknown module middle_block.{index}")
    return f"mid_block.{names[index]}"


def _kind(index: str, attention: bool, layer: int) -> str:
    if index == "0":
        return f"resnets.{layer}"
    return f"attentions.{layer}" if attention and index == "1" else "upsamplers.0"
