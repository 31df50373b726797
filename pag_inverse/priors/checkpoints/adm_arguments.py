"""The arguments of ADM's programs, as a file beside a checkpoint holds them: used, checked against it, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from torch import Tensor

from pag_inverse.priors.checkpoints.files import read_settings
from pag_inverse.priors.checkpoints.picture_side import LARGEST_SIDE
from pag_inverse.settings import settings, validated

# How a network was trained and is sampled from: they change nothing of what it computes.
_OF_NO_EFFECT = {
    "batch_size", "classifier_path", "classifier_scale", "clip_denoised", "data_dir", "dropout",
    "dynamic_threshold", "ema_rate", "fp16_scale_growth", "log_interval", "lr", "lr_anneal_steps", "microbatch",
    "model_path", "num_samples", "rescale_learned_sigmas", "rescale_timesteps", "resume_checkpoint", "sampler",
    "save_interval", "schedule_sampler", "timestep_respacing", "use_checkpoint", "use_ddim", "use_fp16", "use_kl",
    "weight_decay",
}  # fmt: skip


def _numbers(value: object) -> object:
    """ADM's lists: "32,16,8", or a single number."""
    if isinstance(value, str):
        return tuple(float(part) for part in value.split(",") if part.strip())
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, (int, float)) else value


_Number = Annotated[int, Field(ge=-1, le=2**16)]
_Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]


@settings
class AdmArguments:
    """The arguments of `create_model_and_diffusion` that matter here; None where the file does not say.

    Those with a single allowed value say what kind of model this project can use.
    """

    image_size: Annotated[int, Field(ge=1, le=LARGEST_SIDE)] | None = None
    num_channels: _Number | None = None
    num_res_blocks: _Number | None = None
    channel_mult: _Numbers | None = None
    attention_resolutions: _Numbers | None = None
    num_heads: _Number | None = None
    num_head_channels: _Number | None = None
    num_heads_upsample: _Number = -1
    use_new_attention_order: bool = False
    use_scale_shift_norm: bool | None = None
    resblock_updown: bool | None = None
    learn_sigma: bool | None = None
    model_var_type: Literal["learned_range", "fixed_small", "fixed_large"] | None = None
    class_cond: bool | None = None
    predict_xstart: Literal[False] = False
    model_mean_type: Literal["epsilon"] = "epsilon"
    noise_schedule: Literal["linear"] = "linear"
    diffusion_steps: Literal[1000] = 1000
    steps: Literal[1000] = 1000

    def head_channels(self, state: Mapping[str, Tensor], default: int) -> int:
        """The width of an attention head, by ADM's rule: `num_head_channels`, unless it is -1 or not there."""
        if self.num_head_channels not in (None, -1):
            return int(self.num_head_channels or 0)
        if self.num_heads is None:
            if self.num_head_channels is None:
                return default
            raise ValueError("num_head_channels is -1 and num_heads is missing: one of them must be given")
        if self.num_heads_upsample not in (-1, self.num_heads):
            raise ValueError(f"num_heads_upsample {self.num_heads_upsample} and num_heads {self.num_heads} differ")
        widths = {v.shape[0] // 3 for k, v in state.items() if k.endswith("qkv.weight")}
        if len(widths) != 1 or self.num_heads < 1 or max(widths) % self.num_heads:
            found = f"num_heads {self.num_heads} over attention of widths {sorted(widths)}"
            raise ValueError(f"{found}: heads of one width are needed")
        return widths.pop() // self.num_heads


def read_arguments(file: Path) -> AdmArguments:
    """The arguments in a JSON or YAML file; ValueError for an unknown one, or one of a model not supported here."""
    given = {key: value for key, value in read_settings(file).items() if key not in _OF_NO_EFFECT}
    return validated(AdmArguments, given, str(file))
