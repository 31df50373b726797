"""Figures of the paper (paper.yaml) that a reproduction is held against."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


@cache
def paper_rows() -> Mapping[str, Mapping[str, Any]]:
    """The published figures by solver and task."""
    import yaml

    text = resources.files("pag_inverse.reports").joinpath("paper.yaml").read_text(encoding="utf-8")
    rows: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)
    return rows


def paper_figure(settings: Mapping[str, Any], metric: str) -> float | None:
    """The paper's figure where task, solver, data set and rows of the tables are the paper's; else None."""
    row = _row(settings)
    figure: float | None = row.get("with_pag" if settings["s"] > 0 else "without_pag", {}).get(metric)
    return figure


def paper_note(settings: Mapping[str, Any]) -> str:
    """What a reader of the paper's figure must know; empty where there is nothing to say."""
    return str(_row(settings).get("note", ""))


def _row(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    if settings["images"] != "ffhq" or settings["dataset"] != "ffhq":
        return {}
    row: Mapping[str, Any] = paper_rows().get(settings["solver"], {}).get(settings["task"], {})
    return row
