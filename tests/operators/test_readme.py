"""The package's README: its snippets run, and its table is complete."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

import operators
from operators import OPERATORS

README = Path(operators.__file__).with_name("README.md")


@pytest.fixture
def text() -> str:
    if not README.is_file():
        pytest.skip("the README is not beside the installed package")
    return README.read_text(encoding="utf-8")


def test_the_snippets_run_one_after_another(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.registry.OPERATORS", OPERATORS.copy())
    monkeypatch.setattr(operators, "OPERATORS", operators.registry.OPERATORS, raising=False)
    snippets = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 4
    names: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, str(README), "exec", dont_inherit=True), names)
    x = names["x"]
    torch.testing.assert_close(names["y"], 0.5 * x)
    assert torch.equal(names["again"].forward(x[:1]), names["first"].to("cpu", torch.float32).forward(x[:1]))
    assert float(names["hole"].forward(x)[..., 16:48, 16:48].abs().max()) == 0


def test_the_table_names_every_operator_and_setting(text: str) -> None:
    rows = {cells[1].strip(" `"): cells[3] for line in text.splitlines() if len(cells := line.split("|")) == 6}
    for name, kind in OPERATORS.items():
        settings = {field.name for field in fields(kind.Settings or object)} - {"project"}  # type: ignore[arg-type]
        assert set(re.findall(r"`(\w+)`", rows[name])) == settings, name
