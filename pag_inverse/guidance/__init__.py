"""Guidance: from a prior's predictions to the eps that moves the sample and the one that meets the measurement."""

from pag_inverse.guidance.guidance import (
    Guidance,
    GuidedEps,
    GuidedModel,
    NoGuidance,
    PerturbedAttentionGuidance,
)

__all__ = ["Guidance", "GuidedEps", "GuidedModel", "NoGuidance", "PerturbedAttentionGuidance"]
