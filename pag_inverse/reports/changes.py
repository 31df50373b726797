"""What PAG changes: the differences of runs with and without it, paired by picture."""

from __future__ import annotations

from collections.abc import Sequence

from pag_inverse.metrics.summary import PAIRED, Difference
from pag_inverse.reports.contents import Change
from pag_inverse.reports.rendering import Table
from pag_inverse.reports.results import TITLES, digits_of


def changes_table(changes: Sequence[Change]) -> Table:
    """A line for each task and solver: the mean of with minus without PAG, and its 95 % interval."""
    names = [name for name in PAIRED if any(d.name == name for change in changes for d in change.differences)]
    rows = []
    for change in changes:
        found = {d.name: d for d in change.differences}
        count = str(max(d.n for d in change.differences))
        told = (difference_text(found[name]) if name in found else "n/a" for name in names)
        rows.append([change.run, count, *told])
    return Table(["run", "n", *(TITLES[name] for name in names)], rows, kind="changes")


def difference_text(d: Difference) -> str:
    """A difference and its interval, with the digits of the metric."""
    digits = digits_of(d.name)
    return f"{d.mean:+.{digits}f} ({d.low:+.{digits}f} to {d.high:+.{digits}f})"
