"""Fuzzed files of runs: what is damaged is told in one line or made again, and never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pag_inverse.data.images import bundled_photograph, png_bytes, prepare
from pag_inverse.evaluation.entries import EvaluationEntry, saved_runs
from pag_inverse.evaluation.results import write_report
from pag_inverse.evaluation.scores import compare_runs, score_run
from pag_inverse.experiments.entries import AblationEntry, JobEntry, TrialEntry
from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.restoration.run import report
from pag_inverse.restoration.subjects import make_subject
from pag_inverse.restoration.writing import SolveEntry
from pag_inverse.storage.entries import ItemEntry
from pag_inverse.storage.files import npy
from pag_inverse.storage.run_store import RunStore

SETTINGS = {
    "task": "gaussian_deblur", "solver": "dps", "s": 1.0, "images": "folder", "dataset": None, "sigma": 0.05,
    "steps": 3, "resize": "bicubic", "layers": ["middle_block.1"],
}  # fmt: skip
ODD = [
    None, True, -1, 0, 1.5, "", "nothing", "../../etc/passwd", "/etc/passwd", [], {}, [[]], [None], {"a": {}}, 10**30,
    "x" * 5000, 1e308, [1, "2"], {"path": 3}, {"truth": {"path": "x", "sha256": None}},
]  # fmt: skip
ODD_LINES = [b"NaN", b"[1]", b"3", b"null", b'{"image": NaN}', b"[" * 20000, b'{"image": 1e999}', b"\xff\xfe"]


def replaced(text: bytes, rng: np.random.Generator) -> bytes:
    """JSON with one of its values replaced by an odd one, or gone."""
    content = json.loads(text)
    places = list(walk(content))
    parent, key = places[rng.integers(len(places))]
    if rng.integers(5) == 0 and isinstance(parent, dict):
        del parent[key]
    else:
        parent[key] = ODD[rng.integers(len(ODD))]
    return json.dumps(content).encode()


def walk(content: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(content.items() if isinstance(content, dict) else enumerate(content)):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from walk(value)


def damaged(content: bytes, number: int, mutated: Callable[..., bytes], rng: np.random.Generator) -> bytes:
    """The content of a file of JSON, or of lines of it, with a part that is odd."""
    if number % 3 == 0:
        return mutated(content, rng)
    if not content.startswith(b"{\n"):  # lines
        lines = content.splitlines(keepends=True)
        place = int(rng.integers(len(lines)))
        lines[place] = ODD_LINES[number % len(ODD_LINES)] if number % 3 == 1 else replaced(lines[place], rng)
        return b"\n".join(line.rstrip(b"\n") for line in lines) + b"\n"
    return replaced(content, rng) if number % 3 == 1 else ODD_LINES[number % len(ODD_LINES)]


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetricNetworks:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    return MetricNetworks.load()


def evaluated(root: Path, networks: MetricNetworks) -> Path:
    """An evaluation of one run with three images, scored and reported."""
    image = prepare(bundled_photograph("chelsea"), 32)
    with RunStore(root / "run", kind="evaluate", settings=SETTINGS, root=root, entry=EvaluationEntry).open() as store:
        for i in range(3):
            files = {
                "truth": (f"truths/{i}.png", png_bytes(image)),
                "measurement": (f"measurements/{i}.npy", npy(image)),
                "restoration0": (f"run/{i}.png", png_bytes(np.roll(image, i + 1, axis=1))),
            }
            entry = {"residual": [1.0], "curve": [3.0, 2.0], "seconds": 1.5, "peak_memory_mb": None}
            store.finish(str(i), entry, files)
        store.finish("bad", {"error": "left the finite numbers"})
    score_run(store, networks)
    write_report([store], networks)
    return root


def test_evaluations(
    fuzzed: Callable[..., Any], mutated: Callable[..., bytes], tmp_path: Path, networks: MetricNetworks
) -> None:
    rng = np.random.default_rng(0)
    whole = evaluated(tmp_path / "whole", networks)
    for number in range(150):
        root = tmp_path / "copy"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(whole, root)
        name = ("manifest.json", "rank-000.jsonl", "scores-000.jsonl")[number % 2 if number % 5 else 2]
        file = root / "run" / name
        file.write_bytes(damaged(file.read_bytes(), number, mutated, rng))

        def use(root: Path = root) -> None:
            stores = saved_runs(root)
            for store in stores:
                score_run(store, networks)
            write_report(stores, networks)
            compare_runs(stores[0], stores[0])

        fuzzed(f"{number} {name}", use)
        store = RunStore(root / "run", kind="evaluate", settings=SETTINGS, root=root, entry=EvaluationEntry)
        if fuzzed(f"check {number} {name}", lambda store=store: store.check() or True):
            with store.open():
                found = store.survey(["0", "1", "2"])
            assert found.finished | set(found.pending) | set(found.failed) == {"0", "1", "2"}
    assert fuzzed.accepted > 50 and fuzzed.refused > 30


KINDS: dict[type[ItemEntry], dict[str, Any]] = {
    SolveEntry: {
        "input": "x", "metrics": {"restoration": {"psnr": 30.0, "ssim": 0.9}}, "sigma": 0.05, "residual": 1.0,
    },
    TrialEntry: {
        "options": {"eta": 1.0}, "s": 1.0, "layers": ["a"], "steps": 3, "mean_psnr": 20.0, "psnr": 19.0,
        "sharpness": 0.5, "residual": 1.0, "seconds": 2.0,
    },
    AblationEntry: {"psnr": 20.0, "ssim": 0.5, "passes": 3, "cpu_seconds": 1.0},
    JobEntry: {"psnr": 20.0, "ssim": 0.5, "sharpness": 1.0, "residual": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_runs_of_every_kind(
    kind: type[ItemEntry], fuzzed: Callable[..., Any], mutated: Callable[..., bytes], tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    pictures = {"restoration": ("r.png", b"r"), "truth": ("t.png", b"t")}
    with RunStore(tmp_path / "run", kind="solve", settings=SETTINGS, entry=kind).open() as whole:
        for name in ("a", "b"):
            whole.finish(name, KINDS[kind], pictures)
    assert whole.survey("ab").finished == {"a", "b"}
    lines, manifest = (tmp_path / "run" / name for name in ("rank-000.jsonl", "manifest.json"))
    contents = lines.read_bytes(), manifest.read_bytes()
    for number in range(60):
        lines.write_bytes(damaged(contents[0], number, mutated, rng) if number % 2 else contents[0])
        manifest.write_bytes(contents[1] if number % 2 else damaged(contents[1], number, mutated, rng))

        def use() -> None:
            store = RunStore(tmp_path / "run", kind="solve", settings=SETTINGS, entry=kind)
            store.check()
            with store.open():
                found = store.survey("ab")
            assert found.finished | set(found.pending) | set(found.failed) == {"a", "b"}
            if kind is SolveEntry:
                report(store, [make_subject(name, "", np.zeros((3, 8, 8), np.float32)) for name in "ab"])

        fuzzed(number, use)
    assert fuzzed.accepted > 15
