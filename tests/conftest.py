"""Shared helpers: recorded runs of the published programs, those under tests/data and any further ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent
FOLDERS = [HERE / "data", HERE.parents[1] / "shared" / "golden"]


class Recordings:
    """Recorded arrays by relative name; a name that is nowhere skips the test and says so."""

    def path(self, name: str) -> Path:
        for folder in FOLDERS:
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"recording {name} is not in this checkout")

    def load(self, name: str) -> dict[str, Tensor]:
        with np.load(self.path(name)) as file:
            return {key: torch.from_numpy(np.array(file[key])) for key in file.files}


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    return Recordings()


@pytest.fixture(autouse=True)
def two_threads() -> None:
    torch.set_num_threads(2)
