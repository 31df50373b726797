"""The page of a comparison: means with intervals, what PAG changes, pictures of every method."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from pag_inverse.data.images import read_picture
from pag_inverse.metrics.paired import psnr
from pag_inverse.reports.comparison import TaskSection, comparison_page
from pag_inverse.reports.contents import ComparisonReport


def section(report: ComparisonReport) -> TaskSection:
    return TaskSection(report, "box_inpainting", None)


def test_the_page_says_what_was_compared(comparison: ComparisonReport) -> None:
    page = comparison_page(comparison)
    assert "2 pictures at 48 px, seed 0" in page and "LPIPS was not measured: no weights." in page
    assert "dps_pag, mean of 3" in page and "dps: with PAG minus without" in page
    assert "dps_pag, mean of several, minus total_variation" in page
    assert "Tuned on training pictures: total_variation 0.05." in page
    assert page.count("data:image/jpeg") == 2 * (1 + 4 + 1)
    assert not re.search(r"(src|href)=\"(?!data:image/)", page) and "@import" not in page


def test_every_method_has_its_mean_with_an_interval(comparison: ComparisonReport) -> None:
    table = section(comparison).quality()
    rows = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    assert list(rows) == ["measurement", "total_variation", "dps", "dps_pag", "dps_pag, mean of 3"]
    scores = [r.scores["psnr"] for r in comparison.tasks["box_inpainting"] if r.method == "dps"]
    mean, half = np.mean(scores), 12.706 * np.std(scores, ddof=1) / np.sqrt(2)  # t of one degree of freedom
    found = re.fullmatch(r"([\d.]+) ± ([\d.]+)", rows["dps"]["PSNR, dB"])
    assert found and [float(v) for v in found.groups()] == pytest.approx([mean, half], abs=0.006)
    assert rows["dps"]["n"] == "2" and rows["dps_pag, mean of 3"]["residual"] == ""
    assert "LPIPS" not in table.head


def test_the_mean_of_samples_is_scored_from_their_pictures(comparison: ComparisonReport) -> None:
    mean = section(comparison).means["dps_pag"]["coffee"]
    files = [r.file for r in comparison.tasks["box_inpainting"] if (r.method, r.picture) == ("dps_pag", "coffee")]
    assert mean.samples == 3 and np.array_equal(
        mean.picture, np.rint(np.mean([read_picture(f) for f in files], axis=0)).astype(np.uint8)
    )
    assert mean.scores["psnr"] == psnr(mean.picture, read_picture(comparison.truths["coffee"])) > mean.single_psnr + 3
    gain = section(comparison).quality().rows[-1][-1]
    assert gain.endswith("dB (exact posterior: +1.76)")  # 10 log10(2 / (1 + 1/3))


def test_differences_are_taken_picture_by_picture(comparison: ComparisonReport) -> None:
    table = section(comparison).changes()
    names = [row[0] for row in table.rows]
    assert names[0] == "dps: with PAG minus without" and "measurement minus total_variation" not in names
    first = {(r.method, r.picture): r.scores["psnr"] for r in comparison.tasks["box_inpainting"] if r.sample == 0}
    expected = np.mean([first["dps_pag", p] - first["dps", p] for p in comparison.truths])
    assert float(table.rows[0][2].split(" ± ")[0]) == pytest.approx(expected, abs=0.006)
    assert table.rows[0][2].startswith("+") and table.rows[0][-1] == "+0.00 ± 0.00"


def test_a_lpips_of_the_means_is_the_one_that_is_given(comparison: ComparisonReport) -> None:
    found = [replace(r, scores={**r.scores, "lpips": 0.25}) for r in comparison.tasks["box_inpainting"]]
    report = replace(comparison, tasks={"box_inpainting": found})
    table = TaskSection(report, "box_inpainting", lambda picture, truth: 0.125).quality()
    column = table.head.index("LPIPS")
    assert [row[column] for row in table.rows[-2:]] == ["0.250 ± 0.000", "0.125 ± 0.000"]


def test_one_picture_has_no_interval_and_a_name_is_text(comparison: ComparisonReport) -> None:
    name = "<img src=x>"
    found = [replace(r, method=name) for r in comparison.tasks["box_inpainting"] if r.picture == "coffee"][:1]
    report = replace(comparison, truths={"coffee": comparison.truths["coffee"]}, tasks={name: found})
    page = re.sub(r"data:image/[^\"]*", "", comparison_page(report))
    assert name not in page and f"<td>{html.escape(name)}</td>" in page
    assert "±" not in page and "nan" not in page
