"""The page of a comparison: means with intervals, what PAG changes, pictures of every method."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from pag_inverse.data.images import read_picture
from pag_inverse.metrics.paired import psnr
from pag_inverse.reports.comparison import TaskSection, comparison_page, sections_of
from pag_inverse.reports.comparison_summary import comparison_markdown
from pag_inverse.reports.contents import ComparisonReport


def section(report: ComparisonReport) -> TaskSection:
    return TaskSection(report, "box_inpainting", None)


def page_of(report: ComparisonReport) -> str:
    return comparison_page(report, sections_of(report))


def test_the_page_says_what_was_compared(comparison: ComparisonReport) -> None:
    page = page_of(replace(comparison, notes=["psld is left out of box_inpainting: no row natural of it."]))
    assert "2 pictures at 48 px, seed 0" in page and "LPIPS was not measured: no weights." in page
    assert "dps_pag, mean of 3" in page and "psld is left out of box_inpainting" in page
    assert "<h3>With PAG minus without</h3>" in page and "<h3>Minus total_variation</h3>" in page
    assert "Tuned on training pictures: total_variation 0.05." in page
    assert page.count("data:image/jpeg") == (1 + 4) + 2 * (1 + 4 + 1)  # a strip of one picture; rows of both
    assert not re.search(r"(src|href)=\"(?!data:image/)", page) and "@import" not in page


def test_many_methods_are_shown_on_one_picture(comparison: ComparisonReport) -> None:
    found = comparison.tasks["box_inpainting"]
    more = [replace(r, method=f"{r.method}{i}") for r in found for i in range(2) if r.method.startswith("dps")]
    report = replace(comparison, tasks={"box_inpainting": [*found, *more, replace(found[0], method="other")]})
    assert page_of(report).count("data:image/jpeg") == 1 + 4 + 4 + 1


def test_every_method_has_its_mean_with_an_interval(comparison: ComparisonReport) -> None:
    table = section(comparison).quality()
    rows = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    assert list(rows) == ["measurement", "total_variation", "dps", "dps_pag", "dps_pag, mean of 3"]
    scores = [r.scores["psnr"] for r in comparison.tasks["box_inpainting"] if r.method == "dps"]
    mean, half = np.mean(scores), 12.706 * np.std(scores, ddof=1) / np.sqrt(2)  # t of one degree of freedom
    found = re.fullmatch(r"([\d.]+) ± ([\d.]+)", rows["dps"]["PSNR, dB"])
    assert found and [float(v) for v in found.groups()] == pytest.approx([mean, half], abs=0.006)
    assert rows["dps_pag"]["passes, forward + backward; of the autoencoder"] == "20 + 10"
    assert rows["dps_pag, mean of 3"]["passes, forward + backward; of the autoencoder"] == "60 + 30"
    assert (rows["dps_pag"]["seconds"], rows["dps_pag, mean of 3"]["CPU seconds"]) == ("2.00", "9.00")
    assert (rows["dps"]["seconds"], rows["measurement"]["CPU seconds"]) == ("2.00", "")
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
    tables = dict(section(replace(comparison, reference="dps_pag")).differences())
    assert list(tables) == ["With PAG minus without", "Minus dps_pag", "Minus total_variation"]
    pag, reference, classical = tables.values()
    assert [row[0] for row in pag.rows] == ["dps", "dps, mean of 3"] and [row[0] for row in reference.rows] == ["dps"]
    assert [row[0] for row in classical.rows] == ["dps", "dps_pag", "dps_pag, mean of 3"]
    first = {(r.method, r.picture): r.scores["psnr"] for r in comparison.tasks["box_inpainting"] if r.sample == 0}
    expected = np.mean([first["dps_pag", p] - first["dps", p] for p in comparison.truths])
    assert float(pag.rows[0][2].split(" ± ")[0]) == pytest.approx(expected, abs=0.006)
    assert float(reference.rows[0][2].split(" ± ")[0]) == pytest.approx(-expected, abs=0.006)
    assert pag.rows[0][2].startswith("+") and pag.rows[0][-1] == "+0.00 ± 0.00"


def test_the_short_tables_have_a_column_for_each_task(comparison: ComparisonReport) -> None:
    found = comparison.tasks["box_inpainting"]
    tasks = {"box_inpainting": found, "motion_deblur": [r for r in found if r.method == "dps"], "denoising_0.5": found}
    report = replace(comparison, tasks=tasks, reference="dps_pag", notes=["A note."])
    sections = sections_of(report)
    lines = comparison_markdown(report, sections).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["method", "box_inpainting", "motion_deblur", "passes", "CPU s"]
    by_method = {row[0]: row[1:] for row in rows[:6]}
    quality = {row[0]: row[2].split(" ± ")[0] for row in sections[0].quality().rows}
    assert by_method["dps_pag"] == [f"{quality['dps_pag']}, {quality['dps_pag, mean of 3']}", "", "20 + 10", "3.0"]
    assert by_method["dps"][1] == quality["dps"] and by_method["measurement"][2:] == ["", ""]
    pag = sections[0].differences()[0][1].rows[0][2]
    assert ["dps", pag, ""] in rows and ["dps", pag.replace("+", "-"), ""] in rows  # PAG's; minus the reference
    assert lines[-1] == "* A note."
    fewer = replace(report, tasks={"box_inpainting": [r for r in found if r.picture == "coffee" or r.sample == 0]})
    text = comparison_markdown(fewer, sections_of(fewer))  # of an interrupted run
    assert re.search(r"\| dps_pag \| [\d.]+, [\d.]+ \(n = 1\) \|", text)


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
    page = re.sub(r"data:image/[^\"]*", "", page_of(report))
    assert name not in page and f"<td>{html.escape(name)}</td>" in page
    assert "±" not in page and "nan" not in page
