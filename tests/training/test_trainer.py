"""One step of the loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pag_inverse.training.crops import Crops
from pag_inverse.training.settings import TrainSettings
from pag_inverse.training.trainer import Trainer


def test_one_large_gradient_does_not_undo_a_network(photographs: Path, tmp_path: Path) -> None:
    """Gradients of norm 0.01 and once 0.9, which a fixed bound of 1 lets pass: it counts as three usual ones."""
    model = torch.nn.Linear(1, 1, bias=False)
    settings = TrainSettings("pixel", ((32, 1.0),), steps=1000, learning_rate=1e-3, warmup=0, ema=0.99)
    data = Crops(sorted(photographs.iterdir()), ((32, 1.0),), 1, 0)
    scale = [0.01]
    trainer = Trainer(model, lambda m, *_: scale[0] * m.weight.sum(), data, settings, tmp_path, torch.device("cpu"))
    for _ in range(300):
        trainer.train_step()
    scale[0] = 0.9
    trainer.train_step()
    assert float(model.weight.grad.norm()) == pytest.approx(3 * 0.01, rel=0.2)
    before = model.weight.detach().clone()
    scale[0] = float("nan")
    trainer.train_step()
    scale[0] = 0.01
    trainer.train_step()
    assert torch.isfinite(model.weight).all() and not torch.equal(model.weight, before)
