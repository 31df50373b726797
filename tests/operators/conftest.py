"""Recorded outputs of the published programs' operators, on one seeded image of 64 pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).resolve()
Recording = dict[str, Tensor]


def load(path: Path) -> Recording:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="session")
def recorded() -> Recording:
    return load(HERE.parents[1] / "data" / "operators" / "ops64.npz")


@pytest.fixture(scope="session")
def recorded_kernels() -> Recording:
    return load(HERE.parents[1] / "data" / "operators" / "motion_kernels.npz")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Recording]:
    """Further recordings, too large for the repository."""

    def find(name: str) -> Recording:
        path = HERE.parents[3] / "shared" / "golden" / name
        if not path.is_file():
            pytest.skip(f"the recording {name} is not beside this repository")
        return load(path)

    return find


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
