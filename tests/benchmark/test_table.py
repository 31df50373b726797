"""The benchmark's figures, from known times."""

from __future__ import annotations

import pytest

from pag_inverse.benchmark.table import curve, sampling_summary, sampling_table, summary, table


def row(**changes: object) -> dict[str, object]:
    seconds = {"ours": [2.0, 4.0, 2.0], "forward and backward": [1.0, 2.0, 1.0], "perturbed suffix": [0.6, 1.2, 0.6],
               "whole perturbed pass": [0.8, 1.6, 0.8], "last decode": [0.0, 0.0, 0.0],
               "published": [3.0, 6.0, 3.0]}  # fmt: skip
    memory = {"ours": {"device_mb": None, "process_mb": 100.0}, "published": {"device_mb": None, "process_mb": 170.0}}
    base = {"prior": "pixel", "solver": "dps", "size": 64, "batch": 2, "precision": "float32", "device": "cpu"}
    return {**base, "seconds": seconds, "processor_seconds": seconds, "memory": memory, **changes}


def test_figures_of_known_times() -> None:
    found = summary(row(), steps=900)
    assert found["seconds a step"] == 2.0 and found["images an hour"] == pytest.approx(4.0)  # two in 1800 s
    assert found["over bound"] == pytest.approx(2.0 / 1.6)
    assert found["published over ours"] == pytest.approx(3.0)  # a batch of two in 2 s, one image in 3 s
    assert found["memory over ours"] == pytest.approx(1.7)
    assert "1.25" in table([found]) and "1.7" in table([found])
    assert "900 s" in curve([found, summary(row(batch=1), steps=900)])


def test_the_figures_of_sampling() -> None:
    seconds = {"none": [0.5, 1.0, 0.5], "pag": [0.8, 1.6, 0.8]}
    memory = {name: {"device_mb": None, "process_mb": 100.0} for name in seconds}
    none, pag = sampling_summary(row(seconds=seconds, processor_seconds=seconds, memory=memory))
    assert (none["guidance"], none["iterations a second"], none["time over none"]) == ("none", 2.0, 1.0)
    assert pag["iterations a second"] == 1.25 and pag["time over none"] == pytest.approx(1.6)
    assert "1.25" in sampling_table([none, pag])
