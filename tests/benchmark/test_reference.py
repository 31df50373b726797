"""The step that is written the published way."""

from __future__ import annotations

import pytest
import torch

from pag_inverse.benchmark.reference import Reference
from pag_inverse.benchmark.run import BenchmarkRequest, cases
from pag_inverse.benchmark.steps import Bench
from pag_inverse.solvers import make_solver


@pytest.mark.parametrize(("prior", "options"), [("pixel", {"eta": 2.0}), ("latent", {"eta": 2.0, "gamma": 0.25})])
def test_the_reference_is_the_same_step(prior: str, options: dict[str, float]) -> None:
    """Written the published way, with the same random numbers, a step ends where ours does.

    Step sizes are powers of two: others round differently inside the loss and outside, which the network's backward
    pass amplifies.
    """
    (case,) = cases(BenchmarkRequest(priors=(prior,), sizes=(64,)))
    ends = []
    for step in (Bench.ours, lambda bench: Reference.beside(bench).step()):
        bench = Bench(case)
        bench.solver = make_solver(case.solver, options)
        ends.append(step(bench))
    torch.testing.assert_close(ends[1], ends[0], atol=2e-4, rtol=1e-3)


def test_the_reference_leaves_the_networks_frozen() -> None:
    (case,) = cases(BenchmarkRequest(priors=("pixel",), sizes=(32,)))
    bench = Bench(case)
    Reference.beside(bench).step()
    assert not any(p.requires_grad for network in bench.prior.networks() for p in network.parameters())
