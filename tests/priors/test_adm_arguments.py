"""Arguments that lie beside an ADM checkpoint are used, checked against its tensors, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pag_inverse import PixelPrior, Prior, load_prior
from pag_inverse.priors.checkpoints.files import load_state


def loaded(checkpoint: Path, folder: Path, changes: dict[str, Any], without: tuple[str, ...] = ()) -> Prior:
    given = json.loads((checkpoint.parent / "config.json").read_text())
    given = {key: value for key, value in {**given, **changes}.items() if key not in without}
    (folder / "arguments.json").write_text(json.dumps(given))
    return load_prior(checkpoint, config=folder / "arguments.json")


def eps(prior: Prior) -> torch.Tensor:
    z = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return prior.predict(z, 100).eps


TRAINING = {"lr": 1e-4, "batch_size": 8, "ema_rate": "0.9999", "data_dir": "faces", "dropout": 0.1, "use_fp16": True}
SAME = [
    ({"num_heads": 4}, ("num_head_channels",)),  # 4 heads at 64 channels are 16 wide
    ({"num_heads": 4, "num_head_channels": -1}, ()),
    ({"num_head_channels": 16, "num_heads": 1}, ()),  # ADM's rule: the width of a head goes first
    ({"channel_mult": [1, 2, 2, 2], "attention_resolutions": [16, 8]}, ()),
    ({"noise_schedule": "linear", "diffusion_steps": 1000, "predict_xstart": False, "steps": 1000}, ()),
    ({"model_mean_type": "epsilon", "model_var_type": "learned_range"}, ()),
    (TRAINING, ()),
]


@pytest.mark.parametrize(("changes", "without"), SAME)
def test_arguments_of_the_same_model(
    changes: dict[str, Any], without: tuple[str, ...], adm_checkpoint: Path, adm: PixelPrior, tmp_path: Path
) -> None:
    assert torch.equal(eps(loaded(adm_checkpoint, tmp_path, changes, without)), eps(adm))


def test_other_heads_are_another_model(adm_checkpoint: Path, adm: PixelPrior, tmp_path: Path) -> None:
    assert (eps(loaded(adm_checkpoint, tmp_path, {"num_head_channels": 32})) - eps(adm)).abs().max() > 1e-2
    assert (eps(loaded(adm_checkpoint, tmp_path, {"use_new_attention_order": True})) - eps(adm)).abs().max() > 1e-2


REFUSED = [
    ({"noise_schedule": "cosine"}, "noise_schedule is 'cosine'; it must be 'linear'"),
    ({"predict_xstart": True}, "predict_xstart is True"),
    ({"diffusion_steps": 4000}, "diffusion_steps is 4000; it must be 1000"),
    ({"steps": 250}, "steps is 250"),
    ({"class_cond": True}, "class_cond is True"),
    ({"model_mean_type": "start_x"}, "model_mean_type is 'start_x'"),
    ({"model_var_type": "learned"}, "model_var_type is 'learned'"),
    ({"model_var_type": "fixed_small"}, "model_var_type learned_range is False, but the tensors"),
    ({"num_channels": 999}, "num_channels is 999, but the tensors of the checkpoint say 32"),
    ({"num_res_blocks": 2}, "num_res_blocks is 2, but"),
    ({"channel_mult": "1,2,3,4"}, r"channel_mult is \(1.0, 2.0, 3.0, 4.0\), but"),
    ({"channel_mult": ""}, r"channel_mult is \(1.0, 2.0, 3.0, 4.0\), but"),  # ADM's default at 64 pixels
    ({"attention_resolutions": "32"}, r"attention_resolutions \(32.0,\) at image_size 64"),
    ({"image_size": 128}, "at image_size 128: attention by level"),
    ({"use_scale_shift_norm": False}, "use_scale_shift_norm is False, but"),
    ({"resblock_updown": False}, "resblock_updown is False, but"),
    ({"learn_sigma": False}, "learn_sigma is False, but"),
    ({"learn_sigma": "yes"}, "learn_sigma is 'yes'"),
    ({"num_head_channels": 24}, "head_channels 24 does not divide"),
    ({"num_head_channels": 0}, "head_channels 0 does not divide"),
    ({"num_head_channels": -1, "num_heads": 7}, "num_heads 7 over attention of widths"),
    ({"num_head_channels": -1, "num_heads_upsample": 2}, "num_heads_upsample 2 and num_heads 4 differ"),
    ({"num_head_chanels": 32}, "num_head_chanels is an unknown key"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_arguments_of_another_model(
    changes: dict[str, Any], message: str, adm_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        loaded(adm_checkpoint, tmp_path, changes)
    assert "arguments.json" in str(error.value) and "\n" not in str(error.value)


def test_a_head_of_minus_one_needs_their_number(adm_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_heads is missing"):
        loaded(adm_checkpoint, tmp_path, {"num_head_channels": -1}, without=("num_heads",))


def test_the_yaml_of_the_published_dps_program(adm_checkpoint: Path, adm: PixelPrior, tmp_path: Path) -> None:
    given = json.loads((adm_checkpoint.parent / "config.json").read_text())
    (tmp_path / "model.yaml").write_text(
        yaml.safe_dump({**given, "model_path": "models/x.pt", "channel_mult": "1,2,2,2"})
    )
    assert torch.equal(eps(load_prior(adm_checkpoint, config=tmp_path / "model.yaml")), eps(adm))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module.model."])
def test_names_behind_a_wrapper(prefix: str, adm_checkpoint: Path, adm: PixelPrior, tmp_path: Path) -> None:
    state = {f"{prefix}{key}": value for key, value in load_state(adm_checkpoint).items()}
    torch.save(state, tmp_path / "wrapped.pt")
    prior = load_prior(tmp_path / "wrapped.pt", config=adm_checkpoint.parent / "config.json")
    assert torch.equal(eps(prior), eps(adm))


def test_a_state_dict_inside_a_training_checkpoint(adm_checkpoint: Path, adm: PixelPrior, tmp_path: Path) -> None:
    state, config = load_state(adm_checkpoint), adm_checkpoint.parent / "config.json"
    half = {key: value.half() for key, value in state.items()}
    torch.save({"ema": half, "step": 7, "lr": [1e-4]}, tmp_path / "one.pt")
    prior = load_prior(tmp_path / "one.pt", config=config)
    assert next(prior.unet.parameters()).dtype == torch.float32
    torch.testing.assert_close(eps(prior), eps(adm), atol=0.05, rtol=0.05)
    torch.save({"student": half, "teacher": state}, tmp_path / "two.pt")
    with pytest.raises(ValueError, match=r"several state dicts \(student, teacher\)"):
        load_prior(tmp_path / "two.pt", config=config)
