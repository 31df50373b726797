"""Scoring what was saved: after an evaluation, once more, or one run against another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pag_inverse.evaluation.entries import saved_runs
from pag_inverse.evaluation.results import write_report
from pag_inverse.evaluation.scores import LINES, compare_runs, score_run
from pag_inverse.metrics.networks import MetricNetworks, MetricsRequest
from pag_inverse.metrics.summary import Difference
from pag_inverse.runtime.devices import check_device
from pag_inverse.storage.run_store import RunStore


def score_again(folder: Path, request: MetricsRequest, device: str = "cpu") -> int:
    """Score every run of a folder anew from its pictures, then report; 1 where it has images that failed."""
    request.check()
    check_device(device)
    stores = saved_runs(folder)
    networks = request.load(device)
    with ExitStack() as held:
        for store in stores:
            held.callback(store.hold().close)
        for store in stores:
            store.forget(LINES)
            score_run(store, networks)
        print(f"written to {write_report(stores, networks)}")
    return 1 if tell_failures(stores) else 0


def tell_failures(stores: Sequence[RunStore]) -> bool:
    """A line on stderr for each image that failed; whether there are any."""
    failed = [f"{store.name}: {i}: {error}" for store in stores for i, error in store.failures().items()]
    print("".join(f"{line}\n" for line in failed), file=sys.stderr, end="")
    return bool(failed)


def print_comparison(before: Path, after: Path, lpips_net: str) -> int:
    """Print AFTER - BEFORE of two runs, or of the runs of the same name of two evaluations."""
    first, second = saved_runs(before), saved_runs(after)
    if len(first) == len(second) == 1:
        pairs = [(first[0], second[0])]
    else:
        named = {store.name: store for store in second}
        pairs = [(store, named[store.name]) for store in first if store.name in named]
    if not pairs:
        raise ValueError(f"{before} and {after} have no runs of the same name; name the runs' own folders")
    for one, other in pairs:
        print(f"{other.name} - {one.name}" if one.name != other.name else one.name)
        print("\n".join(f"  {told(difference)}" for difference in compare_runs(one, other, lpips_net)))
    return 0


def told(d: Difference) -> str:
    """A difference as a line of text."""
    return f"{d.name:9} {d.mean:+.4f}  95 % interval {d.low:+.4f} to {d.high:+.4f}  n = {d.n}"


def score_part(stores: Sequence[RunStore], networks: MetricNetworks, rank: int, world: int) -> None:
    """This process's part of every run."""
    for store in stores:
        score_run(store, networks, rank, world)
