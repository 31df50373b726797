"""Tables and figures of a sweep: what is ranked, written and drawn."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from pag_inverse.reports.figures import to_picture
from pag_inverse.reports.sweep import (
    Score,
    SweepReport,
    SweepRow,
    short_layer,
    sweep_csv,
    sweep_latex,
    sweep_markdown,
)
from pag_inverse.reports.sweep_figures import SolverSweep, curves, heat_map, strip

LAYERS = (("mid_block.attentions.0",), ("mid_block.attentions.0", "up_blocks.1.attentions.0"))


def row(guidance: str, layers: tuple[str, ...], s: float, psnr: float, sharpness: float) -> SweepRow:
    plain = s == 0
    scores = {
        "psnr": Score(psnr, *(() if plain else (psnr - 25, 0.125))),
        "sharpness": Score(sharpness, *(() if plain else (sharpness - 0.5, 0.01))),
    }
    return SweepRow("a_solver", guidance, layers, s, 4, scores, {})


@pytest.fixture
def report() -> SweepReport:
    rows = [row("", (), 0, 25.0, 0.5)]
    for guidance, gain in (("identity", 0.5), ("seg:sigma=2.0", -0.25)):
        for layers in LAYERS:
            rows += [row(guidance, layers, s, 25 + gain * s / len(layers), 0.5 + 0.1 * s) for s in (1.0, 2.0)]
    return SweepReport("a task", "psnr", rows, ("A note.",))


def test_the_best_is_first_in_every_table(report: SweepReport) -> None:
    best, plain = report.ranked()[0], report.ranked()[4]
    assert (best.guidance, best.layers, best.s) == ("identity", LAYERS[0], 2.0) and plain.s == 0
    lines = [line for line in sweep_markdown(report).splitlines() if line.startswith("| ")]
    assert lines[2].startswith("| 1 | a_solver | identity | mid_block.attentions.0 | 2 | 4 | 26.00 | +1.00 ± 0.12 |")
    assert "no PAG" in lines[6] and "A note." in sweep_markdown(report)
    records = list(csv.DictReader(io.StringIO(sweep_csv(report))))
    assert len(records) == 9 and records[0]["layers"] == LAYERS[0][0]
    assert float(records[0]["psnr_change"]) == 1 and float(records[0]["psnr_half_interval"]) == 0.125
    assert records[4]["psnr_change"] == ""
    lower = SweepReport("t", "lpips", [SweepRow("x", "", (), s, 1, {"lpips": Score(s)}, {}) for s in (2.0, 1.0)])
    assert [r.s for r in lower.ranked()] == [1.0, 2.0]


def test_latex_is_escaped_and_every_row_has_its_columns(report: SweepReport) -> None:
    text = sweep_latex(report)
    assert r"a\_solver & identity & mid\_block.attentions.0" in text and r"$\pm$" in text
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    cells = [line.replace(r"\&", "").count("&") + 1 for line in text.splitlines() if line.endswith(r"\\")]
    assert set(cells) == {len(columns)} and len(cells) == 10


def test_layers_in_short() -> None:
    assert short_layer("up_blocks.1.attentions.0") == "up.1.0"
    assert short_layer("down_blocks.2.attentions.1.transformer_blocks.0.attn1") == "down.2.1"
    assert short_layer("mid_block.attentions.0.transformer_blocks.0.attn1") == "mid"


def test_the_heat_map_has_each_setting_where_it_belongs(report: SweepReport) -> None:
    left, right = heat_map(report, "a_solver").axes
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert labels == ["identity, mid", "identity, mid+up.1.0", "seg:sigma=2.0, mid+up.1.0", "seg:sigma=2.0, mid"]
    np.testing.assert_allclose(left.images[0].get_array(), [[0.5, 1], [0.25, 0.5], [-0.125, -0.25], [-0.25, -0.5]])
    assert [text.get_text() for text in left.texts][:2] == ["+0.50", "+1.00"]
    np.testing.assert_allclose(right.images[0].get_array()[:, 1], 0.7)
    assert [text.get_text() for text in left.get_xticklabels()] == ["1", "2"]


def test_the_curves_start_without_pag_and_have_intervals(report: SweepReport) -> None:
    figure = curves(report, "a_solver")
    assert len(figure.axes) == 4, "two sets of layers, quality and sharpness"
    assert [axes.get_title("left") for axes in figure.axes[::2]] == ["mid", "mid+up.1.0"]
    lines = {container.get_label(): container.lines[0] for container in figure.axes[0].containers}
    assert set(lines) == {"identity", "seg:sigma=2.0"}
    assert [float(y) for y in lines["identity"].get_ydata()] == [25, 25.5, 26]
    assert lines["identity"].get_xdata()[0] == 0
    bars = figure.axes[0].containers[0].lines[2][0].get_segments()
    assert [float(bar[1, 1]) - float(bar[0, 1]) for bar in bars] == pytest.approx([0, 0.25, 0.25])
    assert figure.axes[2].get_xlabel() == "scale s" and to_picture(figure).std() > 0


def test_a_sweep_without_pag_has_no_figure(report: SweepReport) -> None:
    plain = SweepReport("a task", "psnr", report.rows[:1])
    for draw in (heat_map, curves):
        with pytest.raises(ValueError, match="with PAG"):
            draw(plain, "a_solver")
    assert strip(plain, "a_solver", None, scales=True) is None


def test_many_layers_of_one_perturbation_are_the_best_lines() -> None:
    rows = [row("", (), 0, 25.0, 0.5)]
    rows += [row("identity", (f"up_blocks.{i}.attentions.0",), 1.0, 25 + i, 0.6) for i in range(12)]
    rows.append(
        SweepRow("a_solver", "identity", ("mid_block",), 1.0, 1, {"psnr": Score(1.0), "sharpness": Score(math.nan)}, {})
    )
    found = SolverSweep(SweepReport("t", "psnr", rows), "a_solver")
    (groups,) = found.panels()
    assert [layers[0].split(".")[1] for _, layers in groups] == ["11", "10", "9", "8", "7", "6", "5", "4", "3"]
