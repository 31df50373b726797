"""The rows that come with the program are the paper's, and flags replace what they say they replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pag_inverse.generation.plans import SUITES, SampleRequest, SampleRow, default_row, load_suite, make_plan
from pag_inverse.generation.recipe import make_guidance
from pag_inverse.guidance import PerturbedAttentionGuidance
from pag_inverse.priors import PixelPrior

ADM = ("input_blocks.14.1", "input_blocks.16.1", "input_blocks.17.1", "middle_block.1")
CONDITIONAL = ("input_blocks.14.1",)
SD = ("mid_block.attentions.0.transformer_blocks.0.attn1",)
DDPM, DDIM = {"sampler": "ddpm", "steps": 250}, {"sampler": "ddim", "steps": 25}
SD50, SD200 = ({"prior": "sd15", "sampler": "ddim", "steps": steps} for steps in (50, 200))
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "table1": {
        "unconditional": {"prior": "imagenet", **DDPM},
        "unconditional_pag": {"prior": "imagenet", **DDPM, "s": 1.0, "layers": ADM},
        "conditional": {"prior": "imagenet_conditional", **DDPM},
        "conditional_pag": {"prior": "imagenet_conditional", **DDPM, "s": 1.0, "layers": CONDITIONAL},
    },
    "table2": {
        "unconditional": SD50,
        "unconditional_pag": {**SD50, "s": 2.0, "layers": SD},
        "text": {**SD50, "prompts": True},
        "text_pag": {**SD50, "prompts": True, "s": 2.5, "layers": SD},
        "text_cfg": {**SD50, "prompts": True, "cfg": 7.5},
        "text_cfg_pag": {**SD50, "prompts": True, "cfg": 2.0, "s": 1.5, "layers": SD},
    },
    "table3": {
        "text_cfg": {**SD50, "prompts": True, "cfg": 7.5},
        "text_pag": {**SD50, "prompts": True, "s": 2.5, "layers": SD},
        "text_cfg_pag": {**SD50, "prompts": True, "cfg": 2.0, "s": 1.5, "layers": SD},
    },
    "fig41": {
        "conditional": {"prior": "imagenet_conditional", **DDIM},
        "conditional_two_models": {
            "prior": "imagenet_conditional",
            "unconditional_prior": "imagenet",
            **DDIM,
            "cfg": 3.0,
        },
        "conditional_pag": {"prior": "imagenet_conditional", **DDIM, "s": 3.0, "layers": CONDITIONAL},
    },
    "pictures": {
        "adm": {"prior": "imagenet", **DDIM},
        "adm_pag": {"prior": "imagenet", **DDIM, "s": 3.0, "layers": ADM},
        "adm_conditional": {"prior": "imagenet_conditional", **DDIM},
        "adm_conditional_pag": {"prior": "imagenet_conditional", **DDIM, "s": 3.0, "layers": CONDITIONAL},
        "sd": SD200,
        "sd_pag": {**SD200, "s": 4.5, "layers": SD},
        "sd_cfg": {**SD200, "prompts": True, "cfg": 7.5},
        "sd_cfg_pag": {**SD200, "prompts": True, "cfg": 6.0, "s": 1.5, "layers": SD},
    },
}


@pytest.mark.parametrize("suite", ROWS)
def test_the_rows_of_the_paper(suite: str) -> None:
    assert dict(load_suite(suite).rows) == {name: SampleRow(**row) for name, row in ROWS[suite].items()}


def test_every_suite_is_known_and_table_1_has_its_published_figures() -> None:
    assert set(SUITES) == {*ROWS, "embedded"}
    expected = {"unconditional": 26.21, "unconditional_pag": 16.23, "conditional": 10.94, "conditional_pag": 6.32}
    assert load_suite("table1").paper == expected


def test_the_defaults_of_published_priors_are_rows_of_the_tables() -> None:
    table1, table2 = load_suite("table1").rows, load_suite("table2").rows
    assert default_row("imagenet", False) == table1["unconditional_pag"]
    assert default_row("imagenet_conditional", False) == table1["conditional_pag"]
    assert default_row("sd15", False) == table2["unconditional_pag"]
    assert default_row("sd15", True) == table2["text_cfg_pag"]


def test_flags_replace_the_rows(tmp_path: Path) -> None:
    plain = make_plan(SampleRequest(pag=0.0, output=tmp_path / "out")).rows["sample"]
    assert (plain.s, plain.layers, plain.prior) == (0.0, (), "pixel")
    given = SampleRequest(prior="latent", pag=3.0, layers=("middle_block.1",), sampler="ddim", steps=7, eta=1.0)
    row = make_plan(given).rows["sample"]
    assert (row.s, row.layers, row.sampler, row.steps, row.eta) == (3.0, ("middle_block.1",), "ddim", 7, 1.0)
    plan = make_plan(SampleRequest(suite="embedded", rows=("latent",), steps=3, size=128))
    assert [(name, row.steps, row.size) for name, row in plan.rows.items()] == [("latent", 3, 128)]


@pytest.mark.parametrize("t", [999, 500, 0])
def test_the_adaptive_scale_of_a_row_is_that_of_the_equation(t: int, pixel: PixelPrior) -> None:
    """s(t) = max(0, s - a (1000 - t))."""
    layers = (pixel.layers()[0].diffusers,)
    row = make_plan(SampleRequest(pag=3.0, layers=layers, adaptive_scale=0.004)).rows["sample"]
    guidance = make_guidance(row, pixel)
    assert isinstance(guidance, PerturbedAttentionGuidance)
    assert guidance.scale(t) == pytest.approx(max(0.0, 3.0 - 0.004 * (1000 - t)))


def test_prompts_are_read_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n\n  a dog \n", encoding="utf-8")
    plan = make_plan(SampleRequest(suite="table3", prompts=tmp_path / "prompts.txt"))
    assert plan.prompts == ("a cat", "a dog")
