"""The comparison with classical methods: resumable, honest about what is there, one page; and the search beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pag_inverse.cli import search
from pag_inverse.cli import compare as evidence
from pag_inverse.data.images import BUNDLED, bundled_photograph, prepare, write_png
from pag_inverse.storage.json_lines import append_line, read_lines


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in BUNDLED:
        folder = tmp_path / ("data" if name in ("astronaut", "coffee") else "training")
        folder.mkdir(exist_ok=True)
        write_png(folder / f"{name}.png", prepare(bundled_photograph(name), 256))
    row = evidence.row_of
    monkeypatch.setattr(evidence, "row_of", lambda task, method: replace(row(task, method), steps=2))
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGS = ["--data", "data", "--training", "training", "--output", "out", "--tuning-pictures", "1", "--size", "64"]
ARGS += ["--sigmas", "0.2"]


def test_one_command_makes_the_page_and_goes_on_where_it_was(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folders))  # without LPIPS' weights
    args = [*ARGS, "--tasks", "box_inpainting", "--samples", "2"]
    assert evidence.main(args) == 0
    entries, _ = read_lines(folders / "out" / "cells.jsonl")
    box = [e for e in entries if e["task"] == "box_inpainting"]
    by_method = {m: [e for e in box if e["method"] == m] for m in {e["method"] for e in box}}
    assert len(by_method["dps_pag"]) == 4 and len(by_method["dps"]) == len(by_method["biharmonic"]) == 2
    assert {"measurement", "total_variation", "autoencoder", "psld", "psld_pag"} < set(by_method)
    page = (folders / "out" / "evidence.html").read_text()
    assert "dps_pag, mean of 2" in page and "with PAG minus without" in page
    assert "dps_pag, mean of several, minus biharmonic" in page and "LPIPS was not measured: no vgg16" in page
    assert page.count("data:image/jpeg") > 12

    lines = (folders / "out" / "cells.jsonl").read_bytes().splitlines(keepends=True)
    (folders / "out" / "cells.jsonl").write_bytes(b"".join(lines[:-2]) + lines[-2][:30])
    assert evidence.main(args) == 0
    again, damaged = read_lines(folders / "out" / "cells.jsonl")
    assert damaged == 1 and len(again) == len(entries)
    strip = lambda e: {k: v for k, v in e.items() if k != "seconds"}  # noqa: E731
    key = lambda e: (e["task"], e["method"], e["picture"], e["sample"])  # noqa: E731
    assert [strip(e) for e in sorted(again, key=key)] == [strip(e) for e in sorted(entries, key=key)]

    assert evidence.main([*args, "--seed", "3"]) == 2
    assert evidence.main([*args, "--many", "hmc"]) == evidence.main([*args, "--sigmas", "0"]) == 2
    assert evidence.main([*args, "--lpips-weights", "none.pth"]) == 2
    row = evidence.row_of
    changed = lambda task, method: replace(row(task, method), **{"eta": 0.5} if method == "dps" else {})  # noqa: E731
    monkeypatch.setattr(evidence, "row_of", changed)
    assert evidence.main(args) == 0
    now, _ = read_lines(folders / "out" / "cells.jsonl")
    assert [(e["method"], e["sample"]) for e in now[len(again) :]] == 2 * [("dps", 0)]
    assert len({e["file"] for e in now}) == len(now)


def test_scores_are_those_of_the_saved_pictures(folders: Path) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    assert evidence.main([*ARGS, "--tasks", "gaussian_deblur", "--solvers", "dps", "--many"]) == 0
    entries, _ = read_lines(folders / "out" / "cells.jsonl")
    for entry in entries:
        picture = np.asarray(PIL.Image.open(folders / "out" / entry["file"]))
        truth = np.asarray(PIL.Image.open(folders / "out" / "truths" / f"{entry['picture']}.png"))
        assert entry["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, picture), abs=1e-9)
    scored = {e["method"]: e["psnr"] for e in entries if e["picture"] == "astronaut"}
    assert scored["total_variation"] > scored["measurement"]


def test_what_bounds_a_restoration(folders: Path) -> None:
    """sigma 0.2 on [-1, 1] is 20 dB, a little more once clipped; a denoiser that is worth its name gains by it."""
    assert evidence.main([*ARGS, "--tasks", "super_resolution", "--solvers", "psld", "--samples", "1"]) == 0
    entries, _ = read_lines(folders / "out" / "cells.jsonl")
    psnr = {(e["task"], e["method"], e["picture"]): e["psnr"] for e in entries}
    for picture in ("astronaut", "coffee"):
        noisy, tv, one_step = (
            psnr["denoising_0.2", m, picture] for m in ("measurement", "total_variation", "one_step")
        )
        assert 20 < noisy < 21 and tv > noisy + 3 and one_step > noisy + 3
        assert psnr["super_resolution", "autoencoder", picture] > 25
    left = [e["residual"] for e in entries if e["method"] == "autoencoder"]
    assert all(1 < residual < 1.5 for residual in left)  # the noise, and the round trip's own error


def test_a_search_tries_each_setting_once(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--task", "super_resolution", "--solver", "psld", "--data", "training", "--output", "found"]
    args += ["--size", "64", "--pictures", "1", "--samples", "2", "--steps", "2", "--eta", "4", "8"]
    guided = ["--pag", "0", "2", "--layers", "mid_block.attentions.0"]
    assert search.main(args) == 0 and search.main([*args, *guided]) == 0
    entries, _ = read_lines(folders / "found" / "search.jsonl")
    assert [(e["setting"]["eta"], e["setting"]["s"]) for e in entries] == [(4, 0), (8, 0), (4, 2), (8, 2)]
    assert all(e["setting"]["gamma"] == pytest.approx(0.1 * e["setting"]["eta"]) for e in entries)
    printed = capsys.readouterr().out
    assert printed.count("mid_block.attentions.0") == 2 and "measurement, enlarged" in printed
    limited = ["--step-limit", "noise", "--encode-interval", "1", "2"]
    assert search.main([*args, *limited]) == 0
    tried = [e["setting"]["options"] for e in read_lines(folders / "found" / "search.jsonl")[0][4:]]
    assert [(o["step_limit"], o["encode_interval"]) for o in tried] == [("noise", k) for k in (1, 1, 2, 2)]
    assert search.main([*args, "--pag", "2"]) == 2 and search.main([*args, "--eta", "-1"]) == 2


def test_lines_survive_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"a": 2, "b')
    append_line(path, {"a": 3})
    assert read_lines(path) == ([{"a": 1}, {"a": 3}], 1)
    assert json.loads(path.read_text().splitlines()[0]) == {"a": 1}
    assert read_lines(tmp_path / "none.jsonl") == ([], 0)
