"""Adding an operator takes one file and one line: its forward map is enough."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from operators import OPERATORS, Operator, check_settings, make_operator

SOURCE = '''
"""Greyscale: the colours are mixed, and some pixels are dimmed for each image."""

from __future__ import annotations

import numpy as np
import torch

from operators import Operator
from operators.base import Projection
from operators.validation import Unit, settings


@settings
class GreySettings:
    dimmed: Unit
    project: Projection = "published"


class Grey(Operator):
    per_image = ("dimming",)
    Settings = GreySettings

    def __init__(self, in_shape, rngs, dimmed, *, project="published"):
        super().__init__(in_shape, (1, *in_shape[1:]), project=project)
        draws = [np.where(rng.uniform(size=self.out_shape) < dimmed, 0.5, 1.0) for rng in rngs]
        self.dimming = torch.from_numpy(np.stack(draws))

    @classmethod
    def _from_settings(cls, in_shape, settings, rngs):
        return cls(in_shape, rngs, settings.dimmed, project=settings.project)

    def _forward(self, x):
        return x.mean(dim=1, keepdim=True) * self.dimming.to(x)


class Squared(Grey):
    linear = False

    def _forward(self, x):
        return super()._forward(x.square())
'''
SHAPE = (3, 9, 7)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file, and its line in the table."""
    path = tmp_path / "grey.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("grey", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "grey", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(OPERATORS, "grey", module.Grey)
    monkeypatch.setitem(OPERATORS, "squared", module.Squared)
    return module


def make(name: str, settings: object) -> Operator:
    return make_operator(name, SHAPE, settings, [np.random.default_rng(seed) for seed in (5, 7)])


def test_it_is_made_by_name_from_a_mapping_or_its_settings(module: ModuleType) -> None:
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = make("grey", {"dimmed": 0.3})
    assert torch.equal(operator.forward(x), make("grey", module.GreySettings(0.3)).forward(x))
    assert operator.forward(x).shape == (2, 1, 9, 7)
    moved = operator.to("cpu", torch.float32).select([1])
    torch.testing.assert_close(moved.forward(x[1:]), operator.forward(x)[1:])


def test_its_adjoint_follows_from_its_forward_map(module: ModuleType) -> None:
    operator = make("grey", {"dimmed": 0.3})
    x = torch.rand(2, *SHAPE, dtype=torch.float64)
    y = torch.rand(2, 1, 9, 7, dtype=torch.float64)
    torch.testing.assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum())
    with torch.inference_mode():
        assert torch.equal(operator.adjoint(y.clone()), operator.adjoint(y))


def test_a_map_that_is_not_linear_has_no_adjoint(module: ModuleType) -> None:
    operator = make("squared", {"dimmed": 0.0})
    with pytest.raises(ValueError, match="Squared is not linear: it has no adjoint"):
        operator.adjoint(operator.forward(torch.ones(2, *SHAPE)))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("grey", {"dimmed": 2}, "mine.yaml: operator: dimmed is 2; it must be less than or equal to 1"),
        ("grey", {"dimmed": 0.1, "x": 1}, "mine.yaml: operator: x is an unknown key; allowed: dimmed, project"),
        ("grey", {}, "mine.yaml: operator: dimmed is missing"),
        ("grey", [1], r"mine.yaml: operator: \[1\] is not a mapping"),
        ("gray", {}, "mine.yaml: operator: unknown operator 'gray'; there are box_inpainting, .*, grey"),
    ],
)
def test_its_settings_are_checked_before_anything_is_built(
    module: ModuleType, name: str, values: object, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error:
        check_settings(name, values, "mine.yaml: operator")
    assert "\n" not in str(error.value)


def test_checked_settings_come_back(module: ModuleType) -> None:
    assert check_settings("grey", {"dimmed": 0.25}) == module.GreySettings(dimmed=0.25, project="published")
