"""Tables for papers: LaTeX with the rules of booktabs."""

from __future__ import annotations

import re

from pag_inverse.reports.rendering import Table

_MARKS = {mark: f"\\{mark}" for mark in "&%$#_{}"}
_MARKS |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "\n": " "}


def latex_table(table: Table, caption: str = "", columns: str = "") -> str:
    r"""A tabular of a table; the caption as a comment.

    columns: the alignment of each; by default the first to the left and the others to the right. The document needs
    \usepackage{booktabs}.

    >>> print(latex_table(Table(["run", "PSNR"], [["a_b", "24.61 ± 0.41"]])))
    \begin{tabular}{lr}
    \toprule
    run & PSNR \\
    \midrule
    a\_b & 24.61 $\pm$ 0.41 \\
    \bottomrule
    \end{tabular}
    <BLANKLINE>
    """
    lines = [" & ".join(map(latex_text, cells)) + r" \\" for cells in (table.head, *table.rows)]
    columns = columns or "l" + "r" * (len(table.head) - 1)
    begin = rf"\begin{{tabular}}{{{columns}}}"
    whole = [begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"]
    comment = [f"% {' '.join(caption.split())}"] if caption else []
    return "\n".join([*comment, *whole]) + "\n"


def latex_text(text: str) -> str:
    """A text whose marks LaTeX prints; a minus is one."""
    return re.sub(r"(?<!\S)(\(?)-(?=\d)", r"\1$-$", "".join(_MARKS.get(mark, mark) for mark in text))
