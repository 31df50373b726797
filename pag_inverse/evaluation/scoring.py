"""The part of the evaluate command that scores what was saved: after a run, once more, or one against another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pag_inverse.evaluation.scores import Difference, Instruments, compare, score_cell, summarise
from pag_inverse.data.images import write_whole
from pag_inverse.storage.saved import SavedCell, find_cells
from pag_inverse.runtime.processes import FolderLock, Processes


def instruments_of(args: argparse.Namespace, device: str) -> Instruments:
    device = "cpu" if device == "mps" else device
    return Instruments.gather(args.lpips_net, args.lpips_weights, args.inception_weights, device)


def score(cells: Sequence[SavedCell], args: argparse.Namespace, processes: Processes, device: str) -> None:
    """This process's part of every cell, on its device."""
    instruments = instruments_of(args, device)
    for cell in cells:
        score_cell(cell, instruments, rank=processes.rank, world=processes.world)


def report(cells: Sequence[SavedCell], args: argparse.Namespace) -> Path:
    """Write results.csv, report.md and report.html into the root of the cells; the page's path."""
    from pag_inverse.evaluation.report import markdown, results_csv
    from pag_inverse.evaluation.report_page import page

    instruments, root = instruments_of(args, args.device), cells[0].root
    results, variants = {cell: summarise(cell, instruments) for cell in cells}, instruments.variants()
    for name, text in (("results.csv", results_csv), ("report.md", markdown), ("report.html", page)):
        write_whole(root / name, text(results, variants).encode())
    return root / "report.html"


def score_again(folder: Path, args: argparse.Namespace) -> int:
    """Score every cell of a folder anew from its pictures, then report."""
    cells = find_cells(folder)
    lock = FolderLock(cells[0].root / ".locks" / "rank-000.lock")
    instruments = instruments_of(args, args.device)
    for cell in cells:
        for path in cell.folder.glob("scores-*.jsonl"):
            path.unlink()
        score_cell(cell, instruments)
    print(f"written to {report(cells, args)}")
    lock.release()
    return 0


def print_comparison(a: Path, b: Path, lpips_net: str) -> int:
    """Tell B - A of two cells, or of the cells of the same name of two runs."""
    first, second = find_cells(a), find_cells(b)
    if len(first) == len(second) == 1:
        pairs = [(first[0], second[0])]
    else:
        named = {cell.name: cell for cell in second}
        pairs = [(cell, named[cell.name]) for cell in first if cell.name in named]
    if not pairs:
        raise ValueError(f"{a} and {b} have no cells of the same name; name the cells' own folders")
    for one, other in pairs:
        print(f"{other.name} - {one.name}" if one.name != other.name else one.name)
        print("\n".join(f"  {told(difference)}" for difference in compare(one, other, lpips_net)))
    return 0


def told(d: Difference) -> str:
    return f"{d.name:9} {d.mean:+.4f}  95 % interval {d.low:+.4f} to {d.high:+.4f}  n = {d.n}"
