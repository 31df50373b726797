"""A comparison under another perturbation: methods with PAG have it, those without are as they were."""

from __future__ import annotations

from pag_inverse import load_prior
from pag_inverse.experiments.methods import Method
from pag_inverse.experiments.stages import candidates_of, row_of
from pag_inverse.guidance.seg import SmoothedEnergy


def test_methods_with_pag_take_the_perturbation() -> None:
    prior, described = load_prior("pixel"), {}
    for perturbation in (None, "seg"):
        for candidate in candidates_of(["dps"], perturbation):
            row = row_of("gaussian_deblur", candidate)
            assert row is not None
            method = Method.of_row(candidate.solver, row, prior, 64)
            described[candidate.name, perturbation] = method.describe()
            if candidate.pag and perturbation:
                assert method.guidance().perturbation == SmoothedEnergy()
    assert described["dps", "seg"] == described["dps", None]
    assert described["dps_pag", "seg"] == {**described["dps_pag", None], "perturbation": "seg:sigma=inf"}
