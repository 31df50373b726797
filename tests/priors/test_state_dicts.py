"""Which state dict of a training checkpoint is taken, and under which names."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pag_inverse import PixelPrior, load_prior

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def right(adm_checkpoint: Path) -> State:
    return torch.load(adm_checkpoint, weights_only=True)


@pytest.fixture(scope="module")
def wrong(right: State) -> State:
    """Weights of the same network that should not be taken."""
    return {key: value + 1 for key, value in right.items()}


@pytest.fixture
def load(adm_checkpoint: Path, tmp_path: Path) -> Callable[[Any], PixelPrior]:
    def loaded(content: Any) -> PixelPrior:
        torch.save(content, tmp_path / "training.pt")
        return load_prior(tmp_path / "training.pt", config=adm_checkpoint.parent / "config.json")  # type: ignore[return-value]

    return loaded


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module.", "_fsdp_wrapped_module.", "model.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers(prefix: str, right: State, load: Any, adm: PixelPrior) -> None:
    assert load(prefixed(prefix, right)).fingerprint == adm.fingerprint


def test_a_part_that_was_compiled_alone(right: State, load: Any, adm: PixelPrior) -> None:
    state = {key.replace("middle_block.", "middle_block._orig_mod."): value for key, value in right.items()}
    assert load(state).fingerprint == adm.fingerprint
    with pytest.raises(ValueError, match="the same name behind a wrapper's prefix"):
        load({**state, "middle_block.0.in_layers.0.bias": torch.zeros(64)})


def test_an_averaged_model_of_torch(right: State, load: Any, adm: PixelPrior) -> None:
    assert load({"n_averaged": torch.tensor(7), **prefixed("module.", right)}).fingerprint == adm.fingerprint


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2), "step": torch.tensor(3)}}, "param_groups": [{"lr": 1e-4}]}
COUNTER = {"n_averaged": torch.tensor(1)}
AVERAGES: dict[str, Callable[[State, State], Any]] = {
    "ema": lambda right, wrong: {"model": wrong, "ema": right, "optimizer": OPTIMIZER, "epoch": 3},
    "ema_model": lambda right, wrong: {"state_dict": wrong, "ema_model": right},
    "model_ema": lambda right, wrong: {"model": wrong, "model_ema": prefixed("module.", right)},
    "ema_state_dict": lambda right, wrong: {"state_dict": wrong, "ema_state_dict": right, "step": 1},
    "params_ema": lambda right, wrong: {"params": wrong, "params_ema": right},
    "averaged_model": lambda right, wrong: {"network": wrong, "averaged_model": {**COUNTER, **right}},
    "shadow": lambda right, wrong: {"model": wrong, "ema": {"decay": 0.999, "shadow": right}},
    "in a state dict": lambda right, wrong: {"model": wrong, "ema": {"state_dict": prefixed("_orig_mod.", right)}},
    "beside the weights": lambda right, wrong: {**wrong, "ema": right},
    "by prefix": lambda right, wrong: {**prefixed("online_model.", wrong), **prefixed("ema_model.", right), **COUNTER},
    "in lightning": lambda right, wrong: {
        "state_dict": {**prefixed("net.", wrong), **prefixed("net_ema.", right)}, "loops": {"a": wrong},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", AVERAGES)
def test_the_moving_average_goes_first(
    name: str, right: State, wrong: State, load: Any, adm: PixelPrior, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load(AVERAGES[name](right, wrong)).fingerprint == adm.fingerprint
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("pag_inverse")]
    assert "training.pt: of " in line and "the weights are taken from" in line and "\n" not in line


LAST: dict[str, Callable[[State, State], Any]] = {
    "state_dict": lambda right, wrong: {"state_dict": right, "model": wrong},
    "model": lambda right, wrong: {"model": right, "discriminator": wrong, "optimizer": OPTIMIZER, "lr": [1e-4]},
    "network": lambda right, wrong: {"network": {"module": right}, "teacher": wrong},
    "the only one": lambda right, wrong: {"unet_weights": right, "epoch": 3, "args": {"lr": 1e-4}},
}


@pytest.mark.parametrize("name", LAST)
def test_the_last_weights(name: str, right: State, wrong: State, load: Any, adm: PixelPrior) -> None:
    assert load(LAST[name](right, wrong)).fingerprint == adm.fingerprint


def test_a_state_dict_with_a_few_other_entries(
    right: State, load: Any, adm: PixelPrior, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {
        "epoch": 3,
        "_metadata": OrderedDict(version=1),
        "name": "faces",
        "global_step": torch.tensor(9),
        "none": None,
    }
    with caplog.at_level(logging.WARNING):
        assert load({**right, **odd}).fingerprint == adm.fingerprint
    assert not caplog.records  # there was no choice


REFUSED: list[tuple[Callable[[State, State], Any], str]] = [
    (lambda right, wrong: {"student": right, "teacher": wrong}, r"several state dicts \(student, teacher\)"),
    (lambda right, wrong: {"ema": {"0.99": right, "0.9999": wrong}}, r"several state dicts \(0.99, 0.9999\)"),
    (
        lambda right, wrong: {"model": wrong, "ema": right, "ema_model": right},
        r"several state dicts \(ema, ema_model\)",
    ),
    (lambda right, wrong: {"model": right, "ema": dict(list(right.items())[:-1])}, "Missing key"),
    (lambda right, wrong: {"optimizer": OPTIMIZER}, "is no state dict of tensors"),
    (lambda right, wrong: {"a": {"b": {"c": 1}}}, "is no state dict of tensors"),
    (lambda right, wrong: [right], "is no state dict of tensors"),
    (lambda right, wrong: 3, "is no state dict of tensors"),
    (lambda right, wrong: None, "is no state dict of tensors"),
    (lambda right, wrong: next(iter(right.values())), "is no state dict of tensors"),
    (lambda right, wrong: nested(right, 20), "is no state dict of tensors"),
    (lambda right, wrong: itself(), "is no state dict of tensors"),
    (lambda right, wrong: many(), "is no state dict of tensors"),
    (lambda right, wrong: {"module.": nn.Parameter(torch.zeros(1))}, "the same name behind a wrapper's prefix"),
]


def nested(state: State, depth: int) -> Any:
    return {"model": nested(state, depth - 1)} if depth else state


def itself() -> Any:
    found: dict[str, Any] = {}
    found["model"] = found
    return found


def many() -> Any:
    """20 levels of 10 names of the same mapping: 10^20 paths."""
    found: Any = {"x": 1}
    for _ in range(20):
        found = {str(i): found for i in range(10)}
    return found


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_checkpoints_without_one_state_dict(make: Any, message: str, right: State, wrong: State, load: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load(make(right, wrong))
    assert "\n" not in str(error.value) and "training.pt" in str(error.value)


def test_prefixes_in_safetensors(right: State, adm: PixelPrior, adm_checkpoint: Path, tmp_path: Path) -> None:
    save_file({**prefixed("module.model.", right), "step": torch.tensor(3)}, tmp_path / "wrapped.safetensors")
    prior = load_prior(tmp_path / "wrapped.safetensors", config=adm_checkpoint.parent / "config.json")
    assert prior.fingerprint == adm.fingerprint
