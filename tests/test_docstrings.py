"""The public names stand in one list, and the docstring of each has an example that runs."""

from __future__ import annotations

import doctest

import pytest

import pag_inverse

CONSTANTS = {"SOLVERS", "TASKS"}


def test_the_public_names():
    assert set(dir(pag_inverse)) == {*pag_inverse.__all__, "__version__"}
    assert all(getattr(pag_inverse, name) is not None for name in pag_inverse.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pag_inverse.nothing


@pytest.mark.parametrize("name", [name for name in pag_inverse.__all__ if name not in CONSTANTS])
def test_every_docstring_has_an_example_that_runs(name):
    found = getattr(pag_inverse, name)
    test = doctest.DocTestParser().get_doctest(found.__doc__ or "", {}, name, None, None)
    assert test.examples, f"{name} has no example"
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
