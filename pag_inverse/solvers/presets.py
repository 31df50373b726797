"""Presets of speed: the steps and options that a row of the tables is run with where fewer steps shall do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """At most so many steps, the options in place of the row's, and what multiplies the row's step sizes."""

    steps: int
    options: Mapping[str, Any] = field(default_factory=dict)
    step_sizes: float = 1.0


# Few steps are long ones: most of them where little noise is left, shorter where it is strong, none past the noise.
LIMITED = {"spacing": "quadratic", "step_scaling": "sqrt_abar", "step_limit": "noise"}

# The noise that PSLD draws into its data term averages out over a thousand steps, and over a hundred does not: without
# it, and with still more steps at the end, a decoder's ill-conditioned gradient has time to meet the measurement.
LATE = {**LIMITED, "spacing": "quartic", "step_scaling": "constant", "renoise_prediction": False}
