"""The measurement of prices: resumable, paired, a table of what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pag_inverse.cli import ablate as prices
from pag_inverse.data.images import BUNDLED, bundled_photograph, prepare, write_png
from pag_inverse.storage.json_lines import read_lines

ARGS = ["--data", "data", "--output", "out", "--size", "64", "--pictures", "2", "--precision", "float32"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    for name in BUNDLED:
        write_png(tmp_path / "data" / f"{name}.png", prepare(bundled_photograph(name), 256))
    whole = prices.settings

    def short(*arguments):  # type: ignore[no-untyped-def]
        return [replace(s, row=replace(s.row, steps=max(2, s.row.steps // 30))) for s in whole(*arguments)]

    monkeypatch.setattr(prices, "settings", short)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_prices_are_paired_and_nothing_is_measured_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*ARGS, "--solvers", "psld", "--only", "row as it is", "encode-interval 1", "pag-interval 0 0.5"]
    assert prices.main(args) == 0
    table = capsys.readouterr().out
    entries, _ = read_lines(here / "out" / "prices.jsonl")
    assert len(entries) == 6 and {e["picture"] for e in entries} == {e["picture"] for e in entries[:2]}
    row = next(line for line in table.splitlines() if line.startswith("| --encode-interval 1"))
    assert "| the row as it is | 2 |" in row and "±" in row
    own, pag, encode = (entries[i]["passes"] for i in (0, 2, 4))
    # Two steps: U-Net and decoder forward and backward, the perturbed pass, the last decoding; the row encodes once.
    assert (own, encode) == (13, 15) and pag == 12
    assert "--encode-interval 2" not in table  # the row's own

    log = here / "out" / "prices.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert prices.main(args) == 0
    again, _ = read_lines(log)
    assert [e["psnr"] for e in again] == pytest.approx([e["psnr"] for e in entries], abs=0.05)
    assert prices.main([*ARGS, "--solvers", "psld", "--table-only"]) == 0
    assert len(read_lines(log)[0]) == 6


def test_bad_input_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prices.main([*ARGS, "--pictures", "0"]) == 2
    assert prices.main(["--data", "nowhere", "--output", "out"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
