"""Class-conditional ADMs: a label acts as ADM adds it, each image has its own, and restoration refuses them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pag_inverse import NoGuidance, PerturbedAttentionGuidance, PixelPrior, load_prior
from pag_inverse.priors.checkpoints.files import load_state

CLASSES = 5


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    return torch.randn(CLASSES, 128, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def conditional(adm_checkpoint: Path, labels: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> PixelPrior:
    file = tmp_path_factory.mktemp("conditional") / "conditional.pt"
    torch.save({**load_state(adm_checkpoint), "label_emb.weight": labels}, file)
    (file.parent / "config.yaml").write_text("{image_size: 64, num_head_channels: 16, class_cond: true}")
    prior = load_prior(file, config=file.parent / "config.yaml", class_conditional=True)
    assert isinstance(prior, PixelPrior) and prior.classes == CLASSES
    return prior


def test_a_label_is_a_shift_of_the_time_embedding(
    conditional: PixelPrior, adm_checkpoint: Path, labels: torch.Tensor, tmp_path: Path
) -> None:
    """emb = time_embed(t) + label_emb(c): the same as an unconditional network with another bias."""
    state = dict(load_state(adm_checkpoint))
    state["time_embed.2.bias"] = state["time_embed.2.bias"] + labels[2]
    torch.save(state, tmp_path / "shifted.pt")
    shifted = load_prior(tmp_path / "shifted.pt", config=adm_checkpoint.parent / "config.json")
    z = torch.randn(1, 3, 32, 32)
    found = conditional.predict(z, 400, torch.tensor([2]))
    expected = shifted.predict(z, 400)
    torch.testing.assert_close(found.eps, expected.eps, atol=1e-4, rtol=1e-4)
    assert found.variance_fraction is not None
    assert (conditional.predict(z, 400, torch.tensor([3])).eps - found.eps).abs().max() > 1e-2


@pytest.mark.parametrize("guided", [False, True])
def test_each_image_has_its_own_label(conditional: PixelPrior, guided: bool) -> None:
    def eps(z: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        layers = ["middle_block.1"]
        guidance = PerturbedAttentionGuidance(1.0, layers, condition=classes) if guided else NoGuidance(classes)
        return guidance(conditional, z, 400).guided

    z, classes = torch.randn(2, 3, 32, 32), torch.tensor([4, 1])
    singles = torch.cat([eps(z[b : b + 1], classes[b : b + 1]) for b in range(2)])
    torch.testing.assert_close(eps(z, classes), singles, atol=1e-4, rtol=1e-4)


def test_it_says_what_it_needs(conditional: PixelPrior) -> None:
    with pytest.raises(ValueError, match="class-conditional: it predicts nothing without a class"):
        conditional.predict(torch.zeros(1, 3, 32, 32), 400)


def test_the_arguments_are_held_against_the_tensors(adm_checkpoint: Path, labels: torch.Tensor, tmp_path: Path) -> None:
    torch.save({**load_state(adm_checkpoint), "label_emb.weight": labels}, tmp_path / "conditional.pt")
    (tmp_path / "wrong.yaml").write_text("{image_size: 64, num_head_channels: 16, class_cond: false}")
    with pytest.raises(ValueError, match="an unconditional one is needed here: `sample` alone takes it"):
        load_prior(tmp_path / "conditional.pt", config=tmp_path / "wrong.yaml")
    with pytest.raises(ValueError, match="class_cond is False, but the tensors of the checkpoint say True"):
        load_prior(tmp_path / "conditional.pt", config=tmp_path / "wrong.yaml", class_conditional=True)
