"""The short tables of a comparison, in Markdown: a line for each method, a column for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pag_inverse.metrics.statistics import estimate, paired_difference
from pag_inverse.reports.comparison import NOT_PRIORS, PAG, Scored, TaskSection, passes_text, text, total
from pag_inverse.reports.contents import ComparisonReport
from pag_inverse.reports.rendering import Table, render

DENOISING = "denoising"  # its sections are not of a task
Cell = Callable[[TaskSection, str], str]


def comparison_markdown(report: ComparisonReport, sections: Sequence[TaskSection]) -> str:
    """PSNR with costs, what PAG changes, and the differences from the reference, for every task."""
    tasks = [section for section in sections if not section.task.startswith(DENOISING)]
    methods = list(dict.fromkeys(method for section in tasks for method in section.first))
    solvers = [method for method in methods if method not in NOT_PRIORS]
    bare = [method for method in solvers if f"{method}{PAG}" in methods]
    reference = report.reference

    def changed_by_pag(section: TaskSection, method: str) -> str:
        return difference(section, f"{method}{PAG}", method)

    def against_reference(section: TaskSection, method: str) -> str:
        return difference(section, method, reference)

    tables = [
        ("PSNR in dB, of one sample and of the mean of several; passes and CPU seconds of one sample.", costs_table),
        ("What PAG changes in PSNR, dB, with the 95 % interval.", _of(changed_by_pag, bare)),
    ]
    if reference in methods:
        others = [method for method in solvers if method != reference]
        tables.append((f"PSNR minus that of {reference}, dB, with the 95 % interval.", _of(against_reference, others)))
    content = {
        "pictures": len(report.truths),
        "size": report.size,
        "seed": report.seed,
        "about_lpips": report.about_lpips,
        "tables": [{"title": title, "table": make(tasks, methods)} for title, make in tables],
        "notes": report.notes,
    }
    return render("comparison.md.j2", content)


def costs_table(sections: Sequence[TaskSection], methods: Sequence[str]) -> Table:
    """The PSNR of every method and task, and what one sample costs."""
    table = _table(quality, sections, methods)
    rows = [[*row, *_costs(sections, method)] for row, method in zip(table.rows, methods, strict=True)]
    return Table([*table.head, "passes", "CPU s"], rows)


def quality(section: TaskSection, method: str) -> str:
    """The PSNR of one sample, and of the mean of several where there are; with n where pictures are missing."""
    told = []
    for scored in (section.first.get(method, {}), section.scores_of_means(method)):
        if scored:
            psnr = estimate([scores["psnr"] for scores in scored.values()])
            missing = f" (n = {psnr.n})" if psnr.n < len(section.report.truths) else ""
            told.append(f"{psnr.mean:.2f}{missing}")
    return ", ".join(told)


def difference(section: TaskSection, method: str, other: str) -> str:
    """The paired difference of single samples, and of means where both have them."""
    kinds: list[tuple[Scored, Scored]] = [
        (section.first.get(method, {}), section.first.get(other, {})),
        (section.scores_of_means(method), section.scores_of_means(other)),
    ]
    told = []
    for after, before in kinds:
        if both := sorted(set(after) & set(before)):
            found = paired_difference([after[p]["psnr"] for p in both], [before[p]["psnr"] for p in both])
            told.append(text(found, 2, "+"))
    return ", ".join(told)


def _of(cell: Cell, methods: Sequence[str]) -> Callable[[Sequence[TaskSection], Sequence[str]], Table]:
    return lambda sections, _: _table(cell, sections, methods)


def _table(cell: Cell, sections: Sequence[TaskSection], methods: Sequence[str]) -> Table:
    rows = [[method, *(cell(section, method) for section in sections)] for method in methods]
    return Table(["method", *(section.task for section in sections)], rows)


def _costs(sections: Sequence[TaskSection], method: str) -> list[str]:
    """The passes and CPU seconds of one sample, averaged over tasks and pictures."""
    found = [r for section in sections for r in section.of.get(method, []) if r.sample == 0]
    seconds = total([r.costs for r in found]).get("cpu_seconds") if found else None
    return [passes_text([r.passes for r in found]), "" if seconds is None else f"{seconds / len(found):.1f}"]
