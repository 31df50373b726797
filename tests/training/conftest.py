from __future__ import annotations

from pathlib import Path

import pytest

from pag_inverse.data.images import bundled_photograph, prepare, write_png


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four photographs of 96 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        write_png(folder / f"{name}.png", prepare(bundled_photograph(name), 96))
    return folder
