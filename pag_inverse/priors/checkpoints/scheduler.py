"""The diffusion chain that a diffusers scheduler's settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pag_inverse.schedule import BETAS, Floats, T
from pag_inverse.settings import PREDICTIONS

_REFUSED = ("rescale_betas_zero_snr", "trained_betas", "use_flow_sigmas")


def betas_of(config: Mapping[str, Any], where: str) -> Floats:
    """The betas, (1000,); ValueError, which begins with `where`, for another kind of chain."""
    schedule, steps = config.get("beta_schedule"), config.get("num_train_timesteps", T)
    if schedule is None:
        kind = config.get("_class_name", "its scheduler")
        raise ValueError(f"{where}: no beta_schedule ({kind}); supported are models of the discrete DDPM chain")
    if schedule not in BETAS or steps != T:
        raise ValueError(
            f"{where}: beta_schedule {schedule}, {steps} steps; supported are {' and '.join(BETAS)}, {T} steps"
        )
    for name in _REFUSED:
        if config.get(name):
            raise ValueError(f"{where}: {name} is not supported")
    return BETAS[schedule](float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02)))


def prediction_of(config: Mapping[str, Any], where: str, given: str | None) -> str:
    """What the network predicts; ValueError, which begins with `where`, where `given` contradicts the settings."""
    found = config.get("prediction_type", "epsilon")
    if found not in PREDICTIONS:
        raise ValueError(f"{where}: prediction_type {found}; supported are {' and '.join(PREDICTIONS)}")
    if given not in (None, found):
        raise ValueError(f"{where} says {found}, not {given}: leave the prediction out, or mend the scheduler")
    return str(found)
