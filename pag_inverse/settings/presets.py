"""Presets of speed: what a row of the tables is run with where fewer steps than its own shall do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pag_inverse.settings.tables import Hyperparameters
from pag_inverse.settings.reader import check_choice


@dataclass(frozen=True)
class Preset:
    """At most so many steps, the options of both solvers and of PSLD alone, and what multiplies PSLD's step sizes.

    The step limit makes larger sizes safe, and PSLD gains by them.
    """

    steps: int
    options: Mapping[str, Any] = field(default_factory=dict)
    psld: Mapping[str, Any] = field(default_factory=dict)
    psld_sizes: float = 1.0


# Few steps are long ones: most of them where little noise is left, shorter where it is strong, none past the noise.
CHAIN = {"spacing": "quadratic", "step_scaling": "sqrt_abar", "step_limit": "noise"}
# The noise that PSLD draws into its data term averages out over a thousand steps, and over a hundred does not: without
# it, and with still more steps at the end, a decoder's ill-conditioned gradient has time to meet the measurement.
PSLD_CHAIN = {"spacing": "quartic", "step_scaling": "constant", "renoise_prediction": False}
PRESETS: Mapping[str, Preset | None] = {
    "exact": None,
    "fast": Preset(100, CHAIN, PSLD_CHAIN, psld_sizes=2.6),
    "draft": Preset(30, CHAIN, {**PSLD_CHAIN, "encode_interval": 2}, psld_sizes=2.0),
}
SPEEDS = tuple(PRESETS)


def preset(row: Hyperparameters, speed: str, solver: str) -> Hyperparameters:
    """The row with a preset's steps, never more than its own, and its options; `exact` changes nothing.

    A limited row with no more steps than the preset's is one already, and stays as it is. eta and gamma are meant for
    the row's own chain: `pag_inverse.rescaling` brings them to the new one. An unknown speed is a ValueError.
    """
    check_choice("speed", speed, SPEEDS)
    found = PRESETS[speed]
    if found is None or (row.options.step_limit == "noise" and row.steps <= found.steps):
        return row
    own, size = (found.psld, found.psld_sizes) if solver == "psld" else ({}, 1.0)
    gamma = None if row.gamma is None else size * row.gamma
    options = replace(row.options, **{**found.options, **own})
    return replace(row, eta=size * row.eta, gamma=gamma, steps=min(row.steps, found.steps), options=options)
