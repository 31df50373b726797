"""What calibration measures, on samples that are known; and the solvers that must be exact."""

from __future__ import annotations

import math

import pytest
import torch

from pag_inverse.experiments.calibration_cases import OPERATORS, PRIORS, SIGMAS, draw_samples, figures, make_case
from pag_inverse.solvers import MMPS, PiGDM

COUNT = 1000


@pytest.mark.parametrize("prior", PRIORS)
def test_draws_of_the_posterior_are_calibrated(prior: str) -> None:
    case = make_case(prior, "super-resolution", 0.05)
    found = figures(case.posterior.sample(COUNT, torch.Generator().manual_seed(5)), case)
    assert found.bias is not None and found.bias_error is not None and found.bias < 2 * found.bias_error < 0.06
    assert [found.ratio, found.measured, found.unmeasured] == pytest.approx([1, 1, 1], abs=0.03)
    assert found.failed == 0 and (found.weight is None) == (prior != "two modes")
    if found.weight is not None:
        assert 0.05 < found.exact_weight < 0.95 and found.weight == pytest.approx(found.exact_weight, abs=0.04)


def test_known_faults_are_told() -> None:
    """Off by half a deviation, half as wide where measured, twice as wide where not."""
    case = make_case("independent, v = 0.1", "mask", 0.3)
    basis, measured = case.directions
    assert 0 < int(measured.sum()) == int(case.matrix.sum())  # the mask's entries
    exact = case.posterior.sample(COUNT, torch.Generator().manual_seed(5)) - case.posterior.mean
    trace = case.posterior.covariance.trace()
    off = 0.5 * (trace / len(basis)).sqrt()
    found = figures(case.posterior.mean + off + exact @ basis * torch.where(measured, 0.5, 2.0) @ basis.T, case)
    assert found.bias == pytest.approx(0.5, abs=0.02)
    assert found.bias_share == pytest.approx(0.5 * float(trace.sqrt() / case.posterior.mean.norm()), rel=0.05)
    assert [found.measured, found.unmeasured] == pytest.approx([0.5, 2.0], rel=0.02)


def test_samples_that_failed_are_counted() -> None:
    case = make_case("smooth", "blur", 0.3)
    samples = case.posterior.sample(10, torch.Generator().manual_seed(5))
    samples[3, 0] = math.nan
    found = figures(samples, case)
    assert found.failed == pytest.approx(0.1) and found.bias is None


@pytest.mark.parametrize("prior", PRIORS[:2])
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_pigdm_that_draws_x0_samples_independent_gaussians_in_ten_steps(
    prior: str, operator: str, sigma: float
) -> None:
    case = make_case(prior, operator, sigma)
    found = figures(draw_samples(PiGDM(variance=case.variance, draw_x0=True), case, COUNT, 10), case)
    assert found.bias is not None and found.bias < 0.02
    assert [found.measured, found.unmeasured] == pytest.approx([1, 1], abs=0.01)


def test_pigdm_as_published_is_unbiased_and_narrower_with_fewer_steps() -> None:
    """A step from the mean of x0 leaves out its variance."""
    case = make_case("independent, v = 1", "mask", 0.3)
    few, many = (figures(draw_samples(PiGDM(spacing="quadratic"), case, COUNT, steps), case) for steps in (25, 150))
    for found in (few, many):
        assert found.bias is not None and found.bias < 0.02
    assert few.ratio is not None and many.ratio is not None and few.ratio < 0.95 < many.ratio < 1.01
    assert many.measured == pytest.approx(1, abs=0.05) and many.unmeasured == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("prior, operator", [("independent, v = 0.1", "mask"), ("smooth", "super-resolution")])
def test_mmps_samples_gaussians_with_and_without_a_covariance(prior: str, operator: str) -> None:
    case = make_case(prior, operator, 0.3)
    found = figures(draw_samples(MMPS(spacing="quadratic", iterations=30), case, COUNT, 120), case)
    assert found.bias is not None and found.bias < 0.02
    assert [found.ratio, found.measured, found.unmeasured] == pytest.approx([1, 1, 1], abs=0.05)
