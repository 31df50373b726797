"""What a run is set to: YAML files and dicts as frozen, validated dataclasses. Nothing here imports torch."""

from operators.validation import (
    Count,
    Interval,
    Names,
    NonNegative,
    Positive,
    Unit,
    check_choice,
    check_different,
    check_number,
    check_whole,
    field_lines,
    settings,
    validated,
)
from pag_inverse.settings.names import AUTO, PRECISIONS, PREDICTIONS, SPEEDS, TRAINING_STEPS
from pag_inverse.settings.prior import PRIORS, BetaConfig, Kind, PriorConfig, load_prior_config
from pag_inverse.settings.reader import read_yaml
from pag_inverse.settings.request import FURTHER_OPTIONS, SolveRequest
from pag_inverse.settings.task import (
    PAPER_TASKS,
    TASKS,
    Hyperparameters,
    OperatorConfig,
    TaskConfig,
    has_row,
    load_task,
    recommended_solver,
)

__all__ = [
    "AUTO",
    "FURTHER_OPTIONS",
    "PAPER_TASKS",
    "PRECISIONS",
    "PREDICTIONS",
    "PRIORS",
    "SPEEDS",
    "TASKS",
    "TRAINING_STEPS",
    "BetaConfig",
    "Count",
    "Hyperparameters",
    "Interval",
    "Kind",
    "Names",
    "NonNegative",
    "OperatorConfig",
    "Positive",
    "PriorConfig",
    "SolveRequest",
    "TaskConfig",
    "Unit",
    "check_choice",
    "check_different",
    "check_number",
    "check_whole",
    "field_lines",
    "has_row",
    "load_prior_config",
    "load_task",
    "read_yaml",
    "recommended_solver",
    "settings",
    "validated",
]
