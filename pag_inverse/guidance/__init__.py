"""Guidance: from a prior's predictions to the eps that moves the sample and the one that meets the measurement."""

from pag_inverse.guidance.distillation import ScoreDistillation
from pag_inverse.guidance.explainer import Explainer
from pag_inverse.guidance.guidance import (
    Guidance,
    GuidedEps,
    GuidedModel,
    NoGuidance,
    PerturbedAttentionGuidance,
)
from pag_inverse.guidance.perturbation import Perturbation
from pag_inverse.guidance.perturbations import (
    COMBINATIONS,
    PERTURBATIONS,
    make_combination,
    make_perturbation,
    spelling,
)

__all__ = [
    "COMBINATIONS",
    "PERTURBATIONS",
    "Explainer",
    "Guidance",
    "GuidedEps",
    "GuidedModel",
    "NoGuidance",
    "Perturbation",
    "PerturbedAttentionGuidance",
    "ScoreDistillation",
    "make_combination",
    "make_perturbation",
    "spelling",
]
