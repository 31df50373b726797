"""Stable Diffusion in one file: tiny models of diffusers and transformers, written out under the original key names."""

from __future__ import annotations

import os
import random
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from pag_inverse import LatentPrior, PerturbedAttentionGuidance, load_prior
from pag_inverse.priors.checkpoints.picture_side import picture_side
from pag_inverse.priors.checkpoints.stable_diffusion import _unet_config, _vae_config
from pag_inverse.priors.load import prompt_of

SCHEDULE = (1000, 0.00085, 0.012, "scaled_linear")
WORDS = 64  # the width of the tiny text encoders
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_NAMES = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    ".resnets.": ".block.",
    "encoder.down_blocks.": "encoder.down.",
}
OPEN_CLIP_NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


@dataclass
class Original:
    """The networks of diffusers and transformers, and the same weights under the original names."""

    unet: Any
    vae: Any
    text: Any
    state: dict[str, Tensor]

    def embedding(self, pad: int) -> Tensor:
        with torch.no_grad():
            return self.text(torch.tensor([[49406, 49407, *[pad] * 75]])).last_hidden_state


def unet_key(key: str, unet: Any) -> str:
    module, kind = key.rsplit(".", 1)
    if module in ENDS:
        return f"{ENDS[module]}.{kind}"
    n = unet.config.layers_per_block + 1
    place, inner = re.fullmatch(r"((?:down|up)_blocks\.\d+\.\w+\.\d+|mid_block\.\w+\.\d+)\.(.*)", key).groups()
    parts = place.split(".")
    inner = re.sub("|".join(RESNET), lambda found: RESNET[found[0]], inner) if parts[-2] == "resnets" else inner
    if parts[0] == "mid_block":
        return f"middle_block.{1 if parts[1] == 'attentions' else 2 * int(parts[2])}.{inner}"
    block, what, layer = int(parts[1]), parts[2], int(parts[3])
    if what == "downsamplers":
        return f"input_blocks.{n * (block + 1)}.0.op.{kind}"
    attends = "Attn" in unet.config.up_block_types[block]
    if what == "upsamplers":
        return f"output_blocks.{n * block + n - 1}.{2 if attends else 1}.conv.{kind}"
    first = n * block + layer + (parts[0] == "down_blocks")
    return f"{'input' if parts[0] == 'down_blocks' else 'output'}_blocks.{first}.{int(what == 'attentions')}.{inner}"


def vae_entry(key: str, value: Tensor, levels: int) -> tuple[str, Tensor]:
    for theirs, ours in VAE_NAMES.items():
        key = key.replace(theirs, ours)
    key = re.sub(r"decoder\.up_blocks\.(\d)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", key)
    conv = ".attn_1." in key and value.ndim == 2
    return key, value[:, :, None, None] if conv else value


def clip_state(text: Any) -> dict[str, Tensor]:
    return {f"text_model.{key.removeprefix('text_model.')}": value for key, value in text.state_dict().items()}


def open_clip_state(text: Any) -> dict[str, Tensor]:
    """OpenCLIP's names, fused attention weights, and a last block that nobody uses."""
    source, found = clip_state(text), {}
    for key, value in source.items():
        key = key.removeprefix("text_model.")
        if match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", key):
            block, inner, kind = match.groups()
            if inner.startswith("self_attn.") and inner != "self_attn.out_proj":
                continue
            found[f"transformer.resblocks.{block}.{OPEN_CLIP_NAMES[inner]}.{kind}"] = value
    for block in range(text.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts = [source[f"text_model.encoder.layers.{block}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            found[f"transformer.resblocks.{block}.attn.in_proj_{kind}"] = torch.cat(parts)
    unused = {k.replace("resblocks.0.", f"resblocks.{block + 1}."): v for k, v in found.items() if "resblocks.0." in k}
    found |= {key: torch.randn_like(value) for key, value in unused.items()}
    found["positional_embedding"] = source["text_model.embeddings.position_embedding.weight"]
    found["token_embedding.weight"] = source["text_model.embeddings.token_embedding.weight"]
    found |= {f"ln_final.{kind}": source[f"text_model.final_layer_norm.{kind}"] for kind in ("weight", "bias")}
    return found | {"text_projection": torch.eye(WORDS), "logit_scale": torch.tensor(1.0)}


def make(version: int) -> Original:
    torch.manual_seed(version)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64) if version == 1 else (64, 64),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WORDS,
        attention_head_dim=8 if version == 1 else (1, 1),
        use_linear_projection=version == 2,
    ).eval()
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=2,
        latent_channels=4,
    ).eval()
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=WORDS,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=1,
            hidden_act="quick_gelu" if version == 1 else "gelu",
        )
    ).eval()
    for parameter in (p for network in (unet, vae, text) for p in network.parameters()):
        parameter.data += 0.03 * torch.randn_like(parameter)  # no two alike, norms and biases neither
    state = {f"model.diffusion_model.{unet_key(k, unet)}": v for k, v in unet.state_dict().items()}
    state |= {f"first_stage_model.{k}": v for k, v in (vae_entry(k, v, 2) for k, v in vae.state_dict().items())}
    if version == 1:
        state |= {f"cond_stage_model.transformer.{k}": v for k, v in clip_state(text).items()}
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    else:
        state |= {f"cond_stage_model.model.{k}": v for k, v in open_clip_state(text).items()}
    state |= {"betas": DDIMScheduler(*SCHEDULE).betas}
    state |= {"alphas_cumprod": (1 - state["betas"]).cumprod(0), "posterior_variance": torch.zeros(1000)}
    return Original(unet, vae, text, {key: value.detach().clone().contiguous() for key, value in state.items()})


@pytest.fixture(scope="module")
def originals() -> Callable[[int], Original]:
    made = {version: make(version) for version in (1, 2)}
    return lambda version: made[version]


@torch.no_grad()
def check(prior: Any, original: Original, pad: int, tolerance: float = 1e-6) -> None:
    """The prior computes what diffusers' networks do."""
    z, x = torch.randn(2, 4, 8, 8), torch.rand(1, 3, 16, 16) * 2 - 1
    context = original.embedding(pad)
    assert isinstance(prior, LatentPrior) and prior.empty is not None
    torch.testing.assert_close(prior.empty, context, atol=tolerance, rtol=tolerance)
    expected = original.unet(z, torch.full((2,), 500), context.expand(2, -1, -1)).sample
    if prior.prediction == "v_prediction":
        scheduler = DDIMScheduler(*SCHEDULE, clip_sample=False, prediction_type="v_prediction")
        scheduler.set_timesteps(1000)
        x0 = scheduler.step(expected, 500, z).pred_original_sample
        abar = scheduler.alphas_cumprod[500]
        expected = (z - abar.sqrt() * x0) / (1 - abar).sqrt()
    torch.testing.assert_close(prior.predict(z, 500).eps, expected, atol=10 * tolerance, rtol=1e-4)
    mode = original.vae.encode(x).latent_dist.mode()
    torch.testing.assert_close(prior.encode(x), mode * 0.18215, atol=tolerance, rtol=1e-4)
    x0 = original.vae.decode(mode).sample
    torch.testing.assert_close(prior.decode(mode * 0.18215), x0, atol=10 * tolerance, rtol=1e-4)


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, path)
    return path


def test_version_1_as_safetensors(originals: Any, tmp_path: Path) -> None:
    prior = load_prior(saved(tmp_path / "v1.safetensors", originals(1).state))
    check(prior, originals(1), 49407)
    assert prior.image_size == 512 and prior.name == "v1"
    assert next(layer.checkpoint for layer in prior.layers()) == "input_blocks.1.1.transformer_blocks.0.attn1"
    with pytest.raises(ValueError, match="tokenizer"):
        prompt_of(prior, "a cat")


def test_the_pictures_side_is_told_without_reading_weights(originals: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "v1.safetensors", originals(1).state)
    torch.save({"state_dict": originals(1).state}, tmp_path / "v1.ckpt")
    (tmp_path / "torn.ckpt").write_bytes((tmp_path / "v1.ckpt").read_bytes()[:999])
    sides = [picture_side(str(p)) for p in (path, tmp_path / "v1.ckpt", tmp_path / "torn.ckpt", tmp_path)]
    assert sides == [512, 512, 256, 256]


def test_a_training_checkpoint(originals: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the trainer's own entries around it, as the published `.ckpt` are, and in half precision."""
    original = originals(1)
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})  # type: ignore[attr-defined]
    half = {k: v.half() if k.startswith(("model.", "first_stage")) else v for k, v in original.state.items()}
    content = {"state_dict": half, "global_step": 470000, "callbacks": {module.ModelCheckpoint: {"best": None}}}
    with monkeypatch.context() as patched:
        for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
            patched.setitem(sys.modules, part, module)
        torch.save(content, tmp_path / "v1.ckpt")
    assert name not in sys.modules
    if not hasattr(torch.serialization, "safe_globals"):
        pytest.skip("this torch cannot be told of harmless names")
    prior = load_prior(tmp_path / "v1.ckpt")
    check(prior, original, 49407, tolerance=2e-3)
    assert next(prior.unet.parameters()).dtype == torch.float32


def test_the_moving_average_is_taken(originals: Any, tmp_path: Path) -> None:
    original = originals(1)
    state, prefix = dict(original.state), "model.diffusion_model."
    for key in [k for k in state if k.startswith(prefix)]:
        state["model_ema." + key.removeprefix("model.").replace(".", "")] = state[key]
        state[key] = torch.randn_like(state[key])
    check(load_prior(saved(tmp_path / "both.safetensors", state)), original, 49407)
    del state["model_ema.diffusion_modelout2weight"]
    with pytest.raises(ValueError, match="only a part of the moving average"):
        load_prior(saved(tmp_path / "part.safetensors", state))


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_in_bfloat16(suffix: str, originals: Any, tmp_path: Path) -> None:
    """Its table of betas is rounded too."""
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in originals(1).state.items()}
    (save_file if suffix == ".safetensors" else torch.save)(state, tmp_path / f"v1{suffix}")
    prior = load_prior(tmp_path / f"v1{suffix}")
    assert torch.equal(prior.unet.conv_in.weight, originals(1).unet.conv_in.weight.bfloat16().float())
    assert prior.betas[-1] == pytest.approx(0.012)
    state["betas"] = (originals(1).state["betas"] * 1.1).bfloat16()
    (save_file if suffix == ".safetensors" else torch.save)(state, tmp_path / f"v1{suffix}")
    with pytest.raises(ValueError, match="its betas are not"):
        load_prior(tmp_path / f"v1{suffix}")


ODD_TENSORS = [
    ("model.diffusion_model.out.2.bias", lambda v: v / 0, "key model.diffusion_model.out.2.bias .* NaN or infinite"),
    ("first_stage_model.decoder.conv_out.bias", lambda v: v * torch.nan, "key first_stage_model.decoder.conv_out.bias"),
    ("cond_stage_model.transformer.text_model.final_layer_norm.bias", lambda v: v.int(), "tensor of another kind"),
    ("first_stage_model.decoder.conv_in.weight", lambda v: v[:, :3].clone(), "3 latent channels, not 4"),
    ("model.diffusion_model.input_blocks.0.0.weight", lambda v: v[0, 0].clone(), "one of 4 sides belongs here"),
    ("model.diffusion_model.middle_block.1.proj_in.weight", lambda v: v.sum(), "cannot be loaded"),
    ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", lambda v: v[:99].clone(), "tokens"),
    ("betas", lambda v: v[:5].clone(), "its betas are not"),
]


@pytest.mark.parametrize("key, change, message", ODD_TENSORS, ids=[key for key, *_ in ODD_TENSORS])
def test_an_odd_tensor_is_named(key: str, change: Any, message: str, originals: Any, tmp_path: Path) -> None:
    state = {**originals(1).state, key: change(originals(1).state[key])}
    with pytest.raises(ValueError, match=message) as error:
        load_prior(saved(tmp_path / "odd.safetensors", state))
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{tmp_path / 'odd.safetensors'}: ")


def test_infinite_numbers_that_nothing_uses(originals: Any, tmp_path: Path) -> None:
    """OpenCLIP's mask holds -inf."""
    mask = torch.full((77, 77), -torch.inf).triu(1)
    state = {**originals(2).state, "cond_stage_model.model.attn_mask": mask}
    check(load_prior(saved(tmp_path / "v2.safetensors", state), prediction="epsilon"), originals(2), 0)


ORIGINAL_YAMLS = [
    ("parameterization: [v]", "parameterization .'v'."),
    ("parameterization: x0", "parameterization 'x0'"),
    ("linear_start: 0.0015", "linear_start is 0.0015; supported is 0.00085"),
    ("linear_end: .nan", "linear_end is nan"),
    ("timesteps: 500", "timesteps is 500"),
    ("timesteps: true", "timesteps is True"),
    ("scale_factor: 0.13025", "scale_factor is 0.13025"),
    ("scale_by_std: true", "scale_by_std is True"),
    ("conditioning_key: hybrid", "conditioning_key is 'hybrid'"),
    ("unet_config: {params: {num_head_channels: 32}}", "num_head_channels is 32; supported is 64"),
]


@pytest.mark.parametrize("text, message", ORIGINAL_YAMLS)
def test_an_original_yaml_of_another_model(text: str, message: str, originals: Any, tmp_path: Path) -> None:
    (tmp_path / "v2.yaml").write_text(f"model: {{params: {{{text}}}}}\n")
    path = saved(tmp_path / "v2.safetensors", originals(2).state)
    with pytest.raises(ValueError, match=message) as error:
        load_prior(path, config=tmp_path / "v2.yaml")
    assert "\n" not in str(error.value)


PARAMS = {"parameterization": "v", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "channels": 4,
          "scale_factor": 0.18215, "unet_config": {"params": {"num_head_channels": 64}}, "use_ema": False}  # fmt: skip
ODD = [None, True, "", "x" * 999, -1, 0, 3.5, 10**400, float("nan"), float("inf"), [], [[1]], {}, {"params": 3}, "a\nb"]


def test_fuzzed_original_yamls(originals: Any, tmp_path: Path) -> None:
    """A prior, or one line: 60 changes at random."""
    path, faults = saved(tmp_path / "v2.safetensors", originals(2).state), {}
    for seed in range(60):
        rng = random.Random(seed)
        params = {**PARAMS, rng.choice([*PARAMS, "unet_config", "new"]): rng.choice(ODD)}
        content = rng.choice(
            [{"model": {"params": params}}] * 4 + [{"model": params}, {"model": rng.choice(ODD)}, params]
        )
        (tmp_path / "v2.yaml").write_text(yaml.safe_dump(content)[: rng.choice([None, None, 30])])
        try:
            load_prior(path, config=tmp_path / "v2.yaml")
        except ValueError as error:
            if "\n" in str(error) or len(str(error)) > 1000:
                faults[seed] = repr(error)
        except Exception as error:
            faults[seed] = repr(error)
    assert not faults


@pytest.mark.parametrize("prediction, size", [("epsilon", 512), ("v_prediction", 768)])
def test_version_2_of_both_kinds(originals: Any, tmp_path: Path, prediction: str, size: int) -> None:
    prior = load_prior(saved(tmp_path / "v2.safetensors", originals(2).state), prediction=prediction)
    check(prior, originals(2), 0)
    assert prior.image_size == size and prior.prediction == prediction


def test_version_2_must_be_told_what_it_predicts(originals: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "v2.safetensors", originals(2).state)
    with pytest.raises(ValueError, match=r"v2\.safetensors: .*give --prediction epsilon .*or v_prediction"):
        load_prior(path)
    (tmp_path / "v.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    (tmp_path / "eps.yaml").write_text("model: {params: {linear_start: 0.00085}}\n")
    (tmp_path / "adm.yaml").write_text("num_heads: 4\n")
    assert load_prior(path, config=tmp_path / "v.yaml").prediction == "v_prediction"
    assert load_prior(path, config=tmp_path / "eps.yaml").prediction == "epsilon"
    with pytest.raises(ValueError, match="one of them is wrong"):
        load_prior(path, config=tmp_path / "v.yaml", prediction="epsilon")
    with pytest.raises(ValueError, match=r"no model\.params"):
        load_prior(path, config=tmp_path / "adm.yaml")
    with pytest.raises(ValueError, match="epsilon, v_prediction"):
        load_prior(path, prediction="sample")


def test_the_perturbed_pass_of_a_v_prediction(originals: Any, tmp_path: Path) -> None:
    """eps - eps-hat is sqrt(abar) (v - v-hat): guidance in eps is guidance in v."""
    path = saved(tmp_path / "v2.safetensors", originals(2).state)
    eps, v = (load_prior(path, prediction=p) for p in ("epsilon", "v_prediction"))
    z, layers = torch.randn(1, 4, 8, 8), ("mid_block.attentions.0.transformer_blocks.0.attn1",)
    with torch.no_grad():
        guided = [PerturbedAttentionGuidance(1.0, layers)(p, z, 300) for p in (eps, v)]
        a, b = (found.guided - found.unguided for found in guided)
    abar = DDIMScheduler(*SCHEDULE).alphas_cumprod[300]
    assert a.abs().max() > 0
    torch.testing.assert_close(b, abar.sqrt() * a, atol=1e-5, rtol=1e-3)
    assert v.predict(z, 1000).eps.isfinite().all()  # PSLD's first timestep


UNET = "model.diffusion_model."
FAULTS = [
    ({"remove": f"{UNET}output_blocks.0.0.in_layers.2.weight"}, "Missing key"),
    ({"remove": f"{UNET}middle_block.1.proj_in.weight"}, "Missing key"),
    ({"remove": "first_stage_model.encoder.mid.attn_1.q.bias"}, "Missing key"),
    ({"remove": "cond_stage_model.transformer.text_model.final_layer_norm.bias"}, "the text encoder, cannot be loaded"),
    ({"add": f"{UNET}adapter.weight"}, "unknown key model.diffusion_model.adapter.weight"),
    ({"add": "first_stage_model.loss.weight"}, "unknown key first_stage_model.loss.weight"),
    ({"add": "control_model.weight"}, "unknown key control_model.weight"),
    ({"add": "cond_stage_model.transformer.extra"}, "the text encoder, cannot be loaded"),
    ({"add": "conditioner.embedders.0.weight"}, "Stable Diffusion XL"),
    ({"add": f"{UNET}label_emb.weight"}, "upscaling or variations"),
    ({"widen": f"{UNET}input_blocks.0.0.weight"}, "9 input channels, not 4"),
    ({"add": "betas"}, "its betas are not"),
    ({"drop": "first_stage_model."}, "decoder.conv_in.weight is missing"),
    ({"drop": "cond_stage_model."}, "is missing"),
]


@pytest.mark.parametrize("fault, message", FAULTS)
def test_a_wrong_file_is_one_line(originals: Any, tmp_path: Path, fault: dict[str, str], message: str) -> None:
    state = dict(originals(1).state)
    if "remove" in fault:
        del state[fault["remove"]]
    if "widen" in fault:
        state[fault["widen"]] = torch.zeros(32, 9, 3, 3)
    if "add" in fault:
        state[fault["add"]] = torch.ones(1000)
    state = {k: v for k, v in state.items() if "drop" not in fault or not k.startswith(fault["drop"])}
    path = saved(tmp_path / "wrong.safetensors", state)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_prior(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_an_unknown_key_of_version_2s_text_encoder(originals: Any, tmp_path: Path) -> None:
    state = {**originals(2).state, "cond_stage_model.model.visual.proj": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"unknown key cond_stage_model\.model\.visual\.proj"):
        load_prior(saved(tmp_path / "wrong.safetensors", state), prediction="epsilon")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_code_in_a_ckpt_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"model.diffusion_model.a": torch.zeros(1)}, "x": Evil()}, "evil.ckpt")
    with pytest.raises(ValueError, match="a pickle with code") as error:
        load_prior("evil.ckpt")
    assert "\n" not in str(error.value) and not Path("ran").exists()


def test_the_published_sizes_are_recognised() -> None:
    """The configurations that the published shapes give are the published ones."""
    for version, heads in ((1, 8), (2, (5, 10, 20, 20))):
        with torch.device("meta"):
            unet = UNet2DConditionModel(
                sample_size=64,
                block_out_channels=(320, 640, 1280, 1280),
                cross_attention_dim=768 if version == 1 else 1024,
                attention_head_dim=heads,
                use_linear_projection=version == 2,
            )
            vae = AutoencoderKL(
                sample_size=512,
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            )
        found = _unet_config({unet_key(k, unet): v for k, v in unet.state_dict().items()})
        assert {k: v for k, v in found.items() if unet.config[k] != v} == {}
        found = _vae_config(dict(vae_entry(k, v, 4) for k, v in vae.state_dict().items()))
        assert {k: v for k, v in found.items() if vae.config[k] != v} == {}
