"""Suites and what they come to: which runs, with whose rows, of which images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pag_inverse.data.images import bundled_photograph, prepare, write_png
from pag_inverse.evaluation.plans import SUITES, EvaluationRequest, Plan, load_suite, make_plan
from pag_inverse.evaluation.run import order_of

PAPER_TASKS = ("box_inpainting", "super_resolution", "gaussian_deblur", "motion_deblur")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for i in range(3):
        write_png(tmp_path / "data" / f"{i}.png", prepare(bundled_photograph("coffee"), 32))
    return tmp_path / "data"


def plan(data: Path, images: str = "folder", **request: Any) -> Plan:
    return make_plan(EvaluationRequest(images=images, root=data, **request))


def test_the_shipped_suites_are_the_papers_four_tasks() -> None:
    assert set(SUITES) == {"table4", "table8", "imagenet"}
    for name in SUITES:
        assert load_suite(name).tasks == PAPER_TASKS


def test_a_suite_with_and_without_pag(data: Path) -> None:
    names = [run.name for run in plan(data, suite="table8", rows="ffhq").runs]
    assert len(names) == 8 and "motion_deblur_dps" in names and "motion_deblur_dps_pag" in names
    assert len(plan(data, suite="imagenet", rows="imagenet").runs) == 16
    narrowed = plan(data, suite="imagenet", rows="imagenet", tasks=("motion_deblur",), solvers=("psld",))
    assert [run.name for run in narrowed.runs] == ["motion_deblur_psld", "motion_deblur_psld_pag"]


def test_table_4_has_its_prior_and_rows(data: Path) -> None:
    requests = [run.request for run in plan(data, "ffhq", suite="table4").runs]
    assert {request.prior for request in requests} == {"sd15"} and {request.dataset for request in requests} == {"ffhq"}
    assert [request.pag for request in requests[:2]] == [0.0, None]  # None: the row's own


def test_a_suite_of_ones_own(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("tasks: [motion_deblur]\nsolvers: [dps]\npriors: {dps: pixel}\n")
    assert [run.name for run in plan(data, suite=str(path)).runs] == ["motion_deblur_dps", "motion_deblur_dps_pag"]
    for text, message in (
        ("tasks: [motion_deblur]\n", "solvers is missing"),
        ("tasks: []\nsolvers: [dps]\n", "tasks"),
        ("tasks: [motion_deblur]\nsolvers: [ddrm]\n", "unknown solver 'ddrm'"),
        ("tasks: [motion_deblur]\nsolvers: [dps]\nguidances: [both]\n", "guidances"),
        ("tasks: [zoom]\nsolvers: [dps]\n", "unknown task 'zoom'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            plan(data, suite=str(path)).runs  # noqa: B018


def test_rows_follow_the_prior_and_the_data_set(data: Path) -> None:
    def dataset(images: str = "folder", **request: Any) -> str | None:
        return plan(data, images, tasks=("motion_deblur",), solvers=("dps",), **request).runs[0].request.dataset

    assert dataset() == dataset("ffhq") == "natural"  # the embedded prior's own rows
    assert dataset("imagenet", prior="ffhq") == "imagenet" and dataset(prior="ffhq") == "ffhq"
    assert dataset(rows="imagenet") == "imagenet"


def test_what_cannot_be_planned(data: Path) -> None:
    named = {"tasks": ("motion_deblur",), "solvers": ("dps",)}
    for request, message in (
        ({}, "--suite, or --task"),
        ({"suite": "table9"}, "table4"),
        ({**named, "both": True, "solve": {"pag": 0.0}}, "--pag 0 is without PAG"),
        ({**named, "split": "3:9"}, "there are 3 images"),
        ({**named, "solve": {"steps": 0}}, "steps is 0"),
        ({**named, "prior": "nowhere.pt"}, "unknown prior"),
        ({**named, "metric_size": 6}, "metric_size is 6"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(data, **request)


def test_a_drawn_order_is_a_permutation_that_the_seed_decides() -> None:
    ids = [f"{i}" for i in range(20)]
    assert order_of(ids, False, 0) == ids
    assert sorted(order_of(ids, True, 0)) == sorted(ids) and order_of(ids, True, 0) != ids
    assert order_of(ids, True, 0) == order_of(ids, True, 0) != order_of(ids, True, 1)
