"""The diffusion chain that a diffusers scheduler's settings describe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from operators.validation import check_number, short
from pag_inverse.schedule import BETAS, Floats, T
from pag_inverse.settings import PREDICTIONS

# Samplers of the discrete DDPM chain. Others are of distilled models (LCM, TCD), flows, EDM or other chains.
SCHEDULERS = (
    "DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler",
    "PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler", "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler", "UniPCMultistepScheduler", "SASolverScheduler", "RePaintScheduler",
)  # fmt: skip
# What changes the chain or the meaning of the network, with its values that change nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "trained_betas": (None,), "timestep_values": (None,), "timesteps": (None, T), "num_train_timesteps": (T,),
    "rescale_betas_zero_snr": (False, None), "use_flow_sigmas": (False, None), "flow_shift": (1.0, None),
    "use_dynamic_shifting": (False, None), "shift_terminal": (None,), "timestep_type": ("discrete",),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned_range"),
}  # fmt: skip
# Of the first versions of diffusers, and of a class that is there only beside another package.
_FURTHER = {"tensor_format", "timesteps", "timestep_values", "noise_sampler_seed"}


def betas_of(config: Mapping[str, Any], where: str) -> Floats:
    """The betas, (1000,); ValueError, which begins with `where`, for another kind of chain or an unknown setting.

    Settings of how a sampler steps have no effect here and are accepted.
    """
    kind, known = config.get("_class_name"), _arguments()
    if kind is not None and kind not in SCHEDULERS:
        raise ValueError(f"{where}: a {short(kind)} is not supported; supported are models of the discrete DDPM chain")
    if "beta_schedule" not in config and kind is None:
        raise ValueError(f"{where}: no beta_schedule; supported are models of the discrete DDPM chain")
    for name, value in config.items():
        if not name.startswith("_") and name not in known.keys() | _FURTHER:
            raise ValueError(f"{where}: {short(name)} is an unknown key of a scheduler: another kind of model")
        if name in _NEUTRAL and not _is_one_of(value, _NEUTRAL[name]):
            allowed = " or ".join(map(repr, _NEUTRAL[name]))
            raise ValueError(f"{where}: {name} is {short(value)}, which is not supported; it must be {allowed}")
    schedule = config.get("beta_schedule", "linear")
    if not isinstance(schedule, str) or schedule not in BETAS:
        raise ValueError(f"{where}: beta_schedule {short(schedule)}; supported are {' and '.join(BETAS)}")
    start, end = (_beta(config, kind, name, where) for name in ("beta_start", "beta_end"))
    if start > end:
        raise ValueError(f"{where}: beta_start {start:g} is above beta_end {end:g}")
    return BETAS[schedule](start, end)


def prediction_of(config: Mapping[str, Any], where: str, given: str | None) -> str:
    """What the network predicts; ValueError, which begins with `where`, where `given` contradicts the settings."""
    found = config.get("prediction_type", "epsilon")
    if found not in PREDICTIONS:
        raise ValueError(f"{where}: prediction_type {short(found)}; supported are {' and '.join(PREDICTIONS)}")
    if given not in (None, found):
        raise ValueError(f"{where} says {found}, not {given}: leave the prediction out, or mend the scheduler")
    return str(found)


def _is_one_of(value: object, allowed: tuple[object, ...]) -> bool:
    plain = value is None or isinstance(value, (bool, int, float, str))  # an array has no truth value
    return plain and any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in allowed)


def _beta(config: Mapping[str, Any], kind: str | None, name: str, where: str) -> float:
    """The first or last beta: as it is given, or as the scheduler's class has it."""
    default = _arguments()[name].get(kind or "DDPMScheduler")
    return check_number(f"{where}: {name}", config.get(name, default), 1e-8, 0.999)


@cache
def _arguments() -> dict[str, dict[str, Any]]:
    """The arguments of the supported schedulers of diffusers: their defaults by class."""
    import diffusers

    found: dict[str, dict[str, Any]] = {}
    for kind in SCHEDULERS:
        if (scheduler := getattr(diffusers, kind, None)) is not None:
            for name, parameter in inspect.signature(scheduler.__init__).parameters.items():
                found.setdefault(name, {})[kind] = parameter.default
    return {name: defaults for name, defaults in found.items() if name not in ("self", "args", "kwargs")}
