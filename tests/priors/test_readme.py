"""The README of the priors: its snippets run, and its table agrees with the settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import pag_inverse.priors
from pag_inverse.settings import PRIORS, load_prior_config

README = Path(pag_inverse.priors.__file__).with_name("README.md")


@pytest.fixture
def text() -> str:
    if not README.is_file():
        pytest.skip("the README is not beside the installed package")
    return README.read_text(encoding="utf-8")


def test_the_snippets_run_one_after_another(text: str) -> None:
    names: dict[str, Any] = {}
    for snippet in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        exec(compile(snippet, str(README), "exec", dont_inherit=True), names)
    assert names["eps"].shape == names["z"].shape and torch.equal(names["x"], names["z"])
    assert "middle_block.1" in names["names"]
    z = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = names["unet"].eval()(z, 9).sample
        for prior in ("own", "same", "made"):
            assert torch.equal(names[prior].predict(z, 9).eps, expected), prior
        torch.testing.assert_close(names["half"].predict(z, 9).eps, expected, atol=0.1, rtol=0.1)


def test_the_table_names_every_prior_and_its_files(text: str) -> None:
    rows = {cells[1].strip(" `"): cells[3] for line in text.splitlines() if len(cells := line.split("|")) == 7}
    for name in PRIORS:
        config = load_prior_config(name)
        if config.embedded:
            assert "in the package" in rows[name]
        else:
            assert set(re.findall(r"`([^`]+)`", rows[name])) == {*config.files, config.hub_repo} - {None}
