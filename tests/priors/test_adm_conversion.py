"""ADM checkpoints in diffusers' U-Net: recorded outputs, the published layouts, checkpoints to be refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from pag_inverse import PixelPrior, load_prior
from pag_inverse.guidance.perturbation import perturbed_twin
from pag_inverse.priors.attention_layers import self_attention_layers
from pag_inverse.priors.checkpoints.adm import AdmLayout, read_layout, unet_config
from pag_inverse.priors.checkpoints.files import load_state

DATA = Path(__file__).parents[1] / "data"
REAL = {
    "model_config.yaml": AdmLayout(
        3, 6, (128, 128, 256, 256, 512, 512), 1, (False,) * 4 + (True, False), True, True, True
    ),
    "imagenet_model_config.yaml": AdmLayout(
        3, 6, (256, 256, 512, 512, 1024, 1024), 2, (False,) * 3 + (True,) * 3, True, True, True
    ),
}


def test_outputs_perturbed_outputs_and_the_input_gradient_are_the_recorded_ones(adm: PixelPrior, recordings) -> None:
    recorded = recordings.load("adm_unet/ffhq_like.npz")
    x = recorded["x"].clone().requires_grad_(True)
    out = adm.unet(x, recorded["t"]).sample
    with torch.no_grad():
        perturbed = perturbed_twin(adm.unet, ["input_blocks.5.1"])(recorded["x"], recorded["t"]).sample
    assert (out - recorded["out"]).abs().max() < 1e-4
    assert (perturbed - recorded["out_pag_in_first"]).abs().max() < 1e-4
    assert (perturbed - out).abs().max() > 1e-2
    (grad,) = torch.autograd.grad(out[:, :3].square().sum(), x)
    expected = recorded["input_grad_of_sum_eps_sq"]
    assert (grad - expected).norm() / expected.norm() < 1e-4


def test_a_trained_model(adm_trained: PixelPrior, recordings) -> None:
    recorded = recordings.load("adm_unet/ffhq_like_trained.npz")
    with torch.no_grad():
        out = adm_trained.unet(recorded["x"], recorded["t"]).sample
    assert (out - recorded["out"]).abs().max() < 1e-4


def test_variance_fraction_is_kept(adm: PixelPrior, recordings) -> None:
    recorded = recordings.load("adm_unet/ffhq_like.npz")
    with torch.no_grad():
        prediction = adm.predict(recorded["x"][:1], int(recorded["t"][0]))
    assert prediction.variance_fraction is not None
    torch.testing.assert_close(prediction.variance_fraction, (recorded["out"][:1, 3:] + 1) / 2, atol=1e-4, rtol=0)


def test_layout_is_read_off_the_shapes(adm_checkpoint: Path) -> None:
    layout = read_layout(load_state(adm_checkpoint), head_channels=16)
    assert layout == AdmLayout(3, 6, (32, 64, 64, 64), 1, (False, False, True, True), True, True, True, 16)


@pytest.mark.parametrize("name", sorted(REAL))
def test_the_published_layouts(name: str) -> None:
    """Number of parameters and names of the attention layers of the real checkpoints."""
    real = json.loads((DATA / "adm_unet" / "real_configs.json").read_text())[name]
    with torch.device("meta"):
        unet = UNet2DModel(**unet_config(REAL[name]))
    assert sum(p.numel() for p in unet.parameters()) == real["params"]
    assert {layer.checkpoint for layer in self_attention_layers(unet)} == set(real["attention"])


def test_diffusers_and_checkpoint_names(adm: PixelPrior) -> None:
    names = {layer.checkpoint: layer.diffusers for layer in adm.layers()}
    assert names["input_blocks.5.1"] == "down_blocks.2.attentions.0"
    assert names["middle_block.1"] == "mid_block.attentions.0"
    assert names["output_blocks.2.1"] == "up_blocks.1.attentions.0"


class Code:
    """What a malicious pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this ran",)


def damage(kind: str, source: Path, target: Path) -> None:
    state = load_state(source)
    if kind == "missing key":
        del state["middle_block.1.qkv.weight"]
    elif kind == "extra key":
        state["input_blocks.1.0.in_layers.7.weight"] = torch.zeros(1)
    elif kind == "other shape":
        state["out.0.weight"] = torch.zeros(64)
    elif kind == "other architecture":
        state = {"conv1.weight": torch.zeros(1)}
    elif kind == "class-conditional":
        state["label_emb.weight"] = torch.zeros(1000, 128)
    if kind == "truncated":
        target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    elif kind == "empty":
        target.write_bytes(b"")
    else:
        torch.save(Code() if kind == "code" else state, target)


@pytest.mark.parametrize(
    "kind",
    [
        "missing key",
        "extra key",
        "other shape",
        "other architecture",
        "class-conditional",
        "truncated",
        "empty",
        "code",
    ],
)
def test_refused_checkpoints(
    kind: str, adm_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(kind, adm_checkpoint, tmp_path / "damaged.pt")
    with pytest.raises(ValueError, match=r"damaged\.pt"):
        load_prior(tmp_path / "damaged.pt", config=adm_checkpoint.parent / "config.json")
    assert "this ran" not in capsys.readouterr().out
