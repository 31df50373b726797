"""Loading: a prior that is loaded already, prompts, and gradients of what was loaded without any."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pag_inverse import LatentPrior, PixelPrior, load_prior
from pag_inverse.priors.checkpoints.picture_side import picture_side
from pag_inverse.priors.load import prompt_of


def test_a_prior_is_returned_as_it_is(pixel: PixelPrior) -> None:
    assert load_prior(pixel) is pixel
    assert load_prior(pixel, device="cpu", precision="float32") is pixel
    for option in ({"precision": "float16"}, {"device": "meta"}, {"low_memory": True}, {"prediction": "epsilon"}):
        with pytest.raises(ValueError, match=r"prior pixel is (loaded already|on cpu)"):
            load_prior(pixel, **option)


def test_a_prior_without_a_text_encoder_takes_no_prompt(pixel: PixelPrior, tiny_sd: LatentPrior) -> None:
    with pytest.raises(ValueError, match="prior pixel takes no prompt"):
        prompt_of(pixel, "a cat")
    with pytest.raises(ValueError, match="prior latent takes no prompt"):
        prompt_of(load_prior("latent"), "a cat")
    with pytest.raises(ValueError, match="holds no tokenizer"):
        prompt_of(tiny_sd, "a cat")


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_a_prior_loaded_in_inference_mode_has_gradients(name: str) -> None:
    with torch.inference_mode():
        prior = load_prior(name, precision="bfloat16", channels_last=True)
    z = torch.randn(1, prior.unet.config.in_channels, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(prior.decode(prior.predict(z, 5).eps).sum(), z)
    assert grad.dtype == torch.float32 and grad.abs().max() > 0


def test_the_pictures_side_of_rectangular_samples(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"sample_size": [32, 64]}')
    assert picture_side(str(tmp_path)) == 64


def test_a_fingerprint_is_of_all_that_decides_what_a_prior_computes(tmp_path):
    import json
    import shutil

    import pag_inverse.priors

    embedded = Path(pag_inverse.priors.__file__).parent / "embedded" / "latent"
    shutil.copytree(embedded, tmp_path / "copy")
    expected = load_prior("latent").fingerprint
    assert load_prior(tmp_path / "copy").fingerprint == expected
    changes = (
        ("unet/config.json", "attention_head_dim", 16),
        ("vae/config.json", "scaling_factor", 0.5),
        ("scheduler/scheduler_config.json", "beta_end", 0.013),
    )
    for name, key, value in changes:
        file = tmp_path / "copy" / name
        whole = file.read_text()
        file.write_text(json.dumps({**json.loads(whole), key: value}))
        assert load_prior(tmp_path / "copy").fingerprint != expected
        file.write_text(whole)
    assert load_prior(tmp_path / "copy").fingerprint == expected
