"""The report of an evaluation: its figures, its notes, and a page that opens offline and shows any name as text."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pag_inverse.metrics.summary import Difference, Metric
from pag_inverse.reports.changes import changes_table
from pag_inverse.reports.contents import Change, EvaluationReport, RunReport
from pag_inverse.reports.evaluation import (
    evaluation_figures,
    evaluation_latex,
    evaluation_markdown,
    evaluation_page,
    shown_images,
)
from pag_inverse.reports.figures import to_bytes
from pag_inverse.reports.latex import latex_table
from pag_inverse.reports.paper import paper_figure, paper_note, paper_rows
from pag_inverse.reports.rendering import Table
from pag_inverse.reports.results import metric_text, notes, results_csv, results_table, settings_tables


class Page(HTMLParser):
    """The texts of the tables' cells with their sorting values, and every address in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, str | None]]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.addresses += [str(found[name]) for name in ("src", "href") if name in found]
        if tag == "tr":
            self.rows.append([])
        self._open = tag in ("td", "th")
        if self._open:
            self.rows[-1].append(("", found.get("data-value")))

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            text, value = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, value)


def test_the_csv_has_a_line_for_each_run_and_metric(evaluation: EvaluationReport) -> None:
    rows = list(csv.DictReader(results_csv(evaluation).splitlines()))
    assert [(row["run"], row["metric"]) for row in rows] == [
        (run.name, metric.name) for run in evaluation.runs for metric in run.metrics
    ]
    found, metric = rows[3], evaluation.runs[1].metrics[0]
    assert float(found["mean"]) == metric.mean and float(found["low"]) == metric.low and found["n"] == "5"
    assert float(found["best"]) > float(found["worst"]) and found["pag"] == "1.0" and found["paper"] == ""
    assert rows[1]["mean"] == "" and rows[1]["reason"] == "no vgg16 weights"


def test_a_figure_is_read_with_its_interval_and_the_papers() -> None:
    assert metric_text(Metric("psnr", 5, 24.613, 24.2, 25.026)) == "24.61 ± 0.41"
    assert metric_text(Metric("lpips", 5, 0.16012), 0.167) == "0.1601\n(paper 0.167)"
    assert metric_text(Metric("fid", reason="no weights"), 21.13) == "n/a\n(paper 21.13)"
    several = Metric("ssim", 2, 0.5, 0.4, 0.6, spread=0.01, worst=0.48, best=0.52)
    assert metric_text(several) == "0.5000 ± 0.1000\n(samples: std 0.0100, 0.4800 to 0.5200)"


def test_costs_count_every_sample(evaluation: EvaluationReport) -> None:
    row = dict(zip(results_table(evaluation).head, results_table(evaluation).rows[0], strict=True))
    assert (row["s/image"], row["images/h"], row["peak GPU MB"], row["n"]) == ("0.50", "3600", "900", "5")


def test_the_papers_figures_stand_only_beside_its_own_setting() -> None:
    settings = {"task": "box_inpainting", "solver": "psld", "images": "ffhq", "dataset": "ffhq", "s": 4.0}
    assert paper_figure(settings, "fid") == 21.13 and paper_figure({**settings, "s": 0.0}, "lpips") == 0.167
    assert paper_figure({**settings, "dataset": "natural"}, "fid") is None
    assert paper_figure({**settings, "images": "folder"}, "fid") is None and paper_figure(settings, "psnr") is None
    assert "pastes known pixels" in paper_note(settings) and not paper_note({**settings, "task": "motion_deblur"})
    assert sum(map(len, paper_rows().values())) == 8


def test_table_4_and_table_8_are_as_published() -> None:
    figures = {
        (solver, task): [row[pag][name] for pag in ("without_pag", "with_pag") for name in ("fid", "lpips")]
        for solver, tasks in paper_rows().items()
        for task, row in tasks.items()
    }
    assert figures == {
        ("psld", "box_inpainting"): [43.11, 0.167, 21.13, 0.149],
        ("psld", "super_resolution"): [42.98, 0.360, 38.57, 0.354],
        ("psld", "gaussian_deblur"): [41.53, 0.221, 37.08, 0.343],
        ("psld", "motion_deblur"): [93.39, 0.450, 40.26, 0.397],
        ("dps", "box_inpainting"): [33.12, 0.168, 26.74, 0.212],
        ("dps", "super_resolution"): [34.00, 0.320, 34.05, 0.327],
        ("dps", "gaussian_deblur"): [44.05, 0.257, 29.42, 0.259],
        ("dps", "motion_deblur"): [39.92, 0.242, 30.57, 0.283],
    }


def test_the_notes_say_what_is_missing_and_what_failed(make_run: Callable[..., RunReport]) -> None:
    paper = {"task": "box_inpainting", "solver": "psld", "images": "ffhq", "dataset": "ffhq"}
    runs = [make_run("box", 0.2, failures=["3"], **paper), make_run("box_pag", 0.1, **paper)]
    said = notes(EvaluationReport(runs, {"psnr": "8-bit RGB", "fid": "Inception", "kid": "Inception"}))
    assert said[:4] == [
        "PSNR, dB: 8-bit RGB.",
        "FID, KID: Inception.",
        "LPIPS n/a: no vgg16 weights.",
        "box: 3 failed: left the finite numbers at step 3.",
    ]
    assert len(said) == 5 and "pastes known pixels" in said[4]


def test_settings_are_said_once_where_runs_share_them(evaluation: EvaluationReport) -> None:
    same, own = settings_tables(evaluation.runs)
    assert ["task", "gaussian_deblur"] in same.rows and "s" not in [row[0] for row in same.rows]
    assert own.head == ["run", "s", "seed"]
    assert own.rows == [["gaussian_deblur_dps", "0.0", ""], ["gaussian_deblur_dps_pag", "1.0", "0"]]


def test_the_markdown_has_well_formed_tables(evaluation: EvaluationReport) -> None:
    strange = replace(evaluation.runs[0], settings={**evaluation.runs[0].settings, "prompt": "a|b\nc"})
    text = evaluation_markdown(replace(evaluation, runs=[strange, evaluation.runs[1]]))
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 3 and "a\\|b c" in text
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1 and re.fullmatch(r"(\| --- )+\|", table.splitlines()[1])
    assert text.startswith("# Evaluation\n") and "## Settings" in text and "\n\n\n" not in text


def test_the_page_shows_best_median_and_worst(evaluation: EvaluationReport) -> None:
    assert shown_images(evaluation.runs) == {"best": "0", "median": "2", "worst": "4"}
    text = evaluation_page(evaluation)
    page = Page(text)
    assert text.count("data:image/jpeg") == 3 * 4 and text.count("data:image/png") == 1
    assert all(address.startswith("data:image/") for address in page.addresses) and "@import" not in text
    for caption in ("best: 0", "median: 2", "worst: 4", "measurement", "with PAG 2", "without PAG 2"):
        assert caption in text
    assert "gaussian deblur, dps" in text


def test_the_table_sorts_by_the_numbers(evaluation: EvaluationReport) -> None:
    rows = Page(evaluation_page(evaluation)).rows
    column = [text for text, _ in rows[0]].index("PSNR, dB")
    for row, run in zip(rows[1:3], evaluation.runs, strict=True):
        assert row[0] == (run.name, run.name)
        text, value = row[column]
        assert float(str(value)) == run.metrics[0].mean and "±" in text
        assert row[column + 1] == ("21.50", "21.5")  # FID: SSIM and LPIPS have no figures, and no columns


def test_a_name_is_text_and_never_code(evaluation: EvaluationReport) -> None:
    name = "<script>alert('&')</script>\" onload=\"x"
    run = evaluation.runs[0]
    named = replace(
        run, name=name, images={name: run.images["0"]}, failures={name: name}, settings={**run.settings, "prompt": name}
    )
    text = evaluation_page(EvaluationReport([named], {"psnr": name}))
    assert Page(text).tags.count("script") == 1 and "<script>alert" not in text
    assert Page(text).rows[1][0] == (name, name)


def test_a_run_without_a_restored_image_has_a_page(make_run: Callable[..., RunReport]) -> None:
    run = make_run("box", 0.2, failures=[str(i) for i in range(5)])
    empty = replace(run, metrics=[Metric("psnr", reason="no images")])
    report = EvaluationReport([empty], {})
    assert "No restored images." in evaluation_page(report) and "no images" in evaluation_markdown(report)
    assert results_table(report).rows == [["box", "0"]] and evaluation_figures(report) == {}


def test_columns_without_a_figure_are_left_out(make_run: Callable[..., RunReport]) -> None:
    """One that the paper alone has a figure for stays: it says what is missing."""
    plain = make_run("gaussian_deblur_psld", 0.2, solver="psld")
    assert "LPIPS" not in results_table(EvaluationReport([plain], {})).head
    paper = replace(plain, settings={**plain.settings, "images": "ffhq", "dataset": "ffhq"})
    table = results_table(EvaluationReport([paper], {}))
    assert table.rows[0][table.head.index("LPIPS")] == "n/a\n(paper 0.221)" and "SSIM" not in table.head


def test_the_measurements_have_one_row_a_task(make_run: Callable[..., RunReport]) -> None:
    measured = [Metric("psnr", 5, 17.5, 17.0, 18.0)]
    runs = [replace(make_run(name, 0.2), measurement=measured) for name in ("blur", "blur_pag")]
    report = EvaluationReport(runs, {})
    table = results_table(report)
    assert [row[0] for row in table.rows] == ["measurement of gaussian_deblur", "blur", "blur_pag"]
    assert table.rows[0][table.head.index("PSNR, dB")] == "17.50 ± 0.50" and table.rows[0][-1] == ""
    line = next(csv.DictReader(results_csv(report).splitlines()))
    assert (line["run"], line["solver"], line["mean"]) == ("measurement of gaussian_deblur", "", "17.5")
    other = replace(runs[1], measurement=[Metric("psnr", 4, 17.4)])
    assert len(results_table(EvaluationReport([runs[0], other], {})).rows) == 4


def test_what_pag_changes_is_told_with_its_interval(evaluation: EvaluationReport) -> None:
    found = [Difference("psnr", 5, -0.25, -0.5, 0.0), Difference("lpips", 5, -0.01234, -0.02, -0.01)]
    report = replace(evaluation, changes=[Change("gaussian_deblur_dps", found)])
    table = changes_table(report.changes)
    assert list(table.head) == ["run", "n", "PSNR, dB", "LPIPS"]
    assert table.rows == [["gaussian_deblur_dps", "5", "-0.25 (-0.50 to +0.00)", "-0.0123 (-0.0200 to -0.0100)"]]
    for text in (evaluation_markdown(report), evaluation_page(report)):
        assert "What PAG changes" in text and "-0.25 (-0.50 to +0.00)" in text
    tex = evaluation_latex(report)
    assert r"gaussian\_deblur\_dps & 5 & $-$0.25 ($-$0.50 to +0.00)" in tex and tex.count(r"\begin{tabular}") == 2
    assert "What PAG changes" not in evaluation_markdown(evaluation)


def test_latex_prints_every_mark() -> None:
    table = Table(["a & b", "100 %"], [["$x_1^2$", "~{#}\\"]])
    body = latex_table(table).splitlines()
    assert body[0] == r"\begin{tabular}{lr}" and body[2] == r"a \& b & 100 \% \\"
    assert body[4] == r"\$x\_1\textasciicircum{}2\$ & \textasciitilde{}\{\#\}\textbackslash{} \\"


def test_figures_for_a_paper(make_run: Callable[..., RunReport]) -> None:
    """A picture with a name that reads like a formula, and one that failed with PAG, do not stop them."""
    runs = [make_run("box", 0.2), make_run("box_pag", 0.1, failures=["0"])]
    strange = [replace(run, images={f"$x_{{{i}\udcff": image for i, image in run.images.items()}) for run in runs]
    for pair in (runs, strange):
        figures = evaluation_figures(EvaluationReport(pair, {}))
        assert set(figures) == {"box_residual", "box_pictures"}
        for figure in figures.values():
            assert to_bytes(figure, "pdf").startswith(b"%PDF")


def test_an_image_that_failed_in_one_run_is_still_shown(make_run: Callable[..., RunReport]) -> None:
    runs = [make_run("box", 0.2, failures=["0"]), make_run("box_pag", 0.1)]
    assert shown_images(runs)["best"] == "0"
    assert evaluation_page(EvaluationReport(runs, {})).count("data:image/jpeg") == 3 * 4 - 1


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_in_a_browser(evaluation: EvaluationReport, tmp_path: Path) -> None:
    probe = """<script>
    const names = () => [...document.querySelectorAll("table.sortable tbody tr")].map(row => row.cells[0].textContent);
    const head = document.querySelector("table.sortable th");
    head.click(); const up = names(); head.click(); const down = names();
    window.addEventListener("load", () => document.body.append("PROBE " + JSON.stringify({
      loaded: [...document.images].every(image => image.complete && image.naturalWidth > 0),
      up, down, narrow: document.documentElement.scrollWidth <= window.innerWidth })));
    </script>"""
    (tmp_path / "probe.html").write_text(evaluation_page(evaluation).replace("</body>", f"{probe}</body>"))
    line = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--dump-dom"]
    line += [f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/probe.html"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout.rpartition("PROBE ")[2].partition("</body>")[0])
    assert found["loaded"] and found["narrow"] and len(found["up"]) == 2
    assert found["up"] == sorted(found["up"]) and found["down"] == found["up"][::-1]
