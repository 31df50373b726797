"""The objectives' weights, and where the autoencoder starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pag_inverse.training.networks import autoencoder
from pag_inverse.training.objectives import eps_objective, validate_autoencoder


@pytest.mark.parametrize(("limit", "weight"), [(4.0, 4.0), (100.0, 10.0)])
def test_strong_noise_weighs_as_its_sigma_up_to_the_limit(limit: float, weight: float) -> None:
    """A network that says nothing errs by eps^2, 1 in the mean; sigma is 10 where abar is 1/101."""

    def silent(x: torch.Tensor, t: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.zeros_like(x))

    objective = eps_objective(torch.full((1000,), 1 / 101), sigma_limit=limit)
    loss = objective(silent, torch.zeros(4, 3, 64, 64), torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(weight, rel=0.03)


def test_the_autoencoder_starts_from_something_that_reconstructs(photographs: Path) -> None:
    validate = validate_autoencoder(sorted(photographs.iterdir()), 96, torch.device("cpu"))
    torch.manual_seed(0)
    with torch.no_grad():
        assert validate(autoencoder())["psnr"] > 18
