"""What is scored is what was saved: from files, in parts, once; and two runs are compared image by image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pag_inverse.data.images import bundled_photograph, png_bytes, prepare, to_uint8
from pag_inverse.evaluation.entries import ScoreLine
from pag_inverse.evaluation.results import write_report
from pag_inverse.evaluation.scores import compare_runs, measured_picture, read_scores, score_run, summarise_run
from pag_inverse.metrics.distribution import Inception
from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.metrics.paired import psnr
from pag_inverse.metrics.summary import Metric
from pag_inverse.storage.files import npy
from pag_inverse.storage.run_store import RunStore


def photograph(size: int = 48, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    image = prepare(bundled_photograph("chelsea"), size)
    return to_uint8(image + noise * np.random.default_rng(seed).standard_normal(image.shape).astype(np.float32))


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetricNetworks:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    return MetricNetworks.load()


def make_run(folder: Path, noise: float, count: int = 6, samples: int = 1) -> RunStore:
    settings = {
        "task": "gaussian_deblur",
        "solver": "dps",
        "s": 1.0,
        "images": "folder",
        "dataset": None,
        "sigma": 0.05,
    }
    with RunStore(folder, kind="evaluate", settings=settings, root=folder.parent).open() as store:
        for i in range(count):
            pictures = [photograph(noise=noise + 0.02 * i, seed=s) for s in range(samples)]
            files = {"truth": (f"truths/{i}.png", png_bytes(photograph()))}
            files |= {f"restoration{s}": (f"{folder.name}/{i}_{s}.png", png_bytes(p)) for s, p in enumerate(pictures)}
            store.finish(str(i), {"residual": [1.0] * samples}, files)
    return store


def by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def test_scores_are_those_of_the_files_and_parts_merge(tmp_path: Path, nothing: MetricNetworks) -> None:
    store = make_run(tmp_path / "run", 0.1, samples=2)
    for rank in range(2):
        score_run(store, nothing, rank, 2)
    scores = read_scores(store)
    assert list(scores) == [str(i) for i in range(6)]
    assert scores["3"][1]["psnr"] == psnr(photograph(noise=0.16, seed=1), photograph())
    found = by_name(summarise_run(store, nothing))
    assert found["psnr"].n == 6 and found["psnr"].low < found["psnr"].mean < found["psnr"].high
    assert found["psnr"].worst < found["psnr"].mean < found["psnr"].best and found["psnr"].spread > 0
    assert found["lpips"].mean is None and "--lpips-weights" in found["lpips"].reason
    assert found["fid"].mean is None and found["fid"].reason
    score_run(store, nothing)
    assert len(store.lines("scores", ScoreLine)) == 6  # nothing is scored twice


def test_a_perfect_restoration_has_an_infinite_psnr(tmp_path: Path, nothing: MetricNetworks) -> None:
    store = make_run(tmp_path / "run", 0.0, count=1)
    score_run(store, nothing)
    assert "Infinity" not in (tmp_path / "run" / "scores-000.jsonl").read_text()
    assert read_scores(store)["0"][0]["psnr"] == float("inf")


def test_a_restoration_that_changed_is_scored_again(tmp_path: Path, nothing: MetricNetworks) -> None:
    store = make_run(tmp_path / "run", 0.2, count=1)
    score_run(store, nothing)
    before = read_scores(store)["0"][0]["psnr"]
    store = make_run(tmp_path / "run", 0.1, count=1)
    assert read_scores(store) == {}
    score_run(store, nothing)
    assert read_scores(store)["0"][0]["psnr"] > before


def test_distribution_metrics_of_a_run(tmp_path: Path, nothing: MetricNetworks) -> None:
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")

    class Means(Inception):
        def __init__(self) -> None: ...

        def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
            means = picture.reshape(-1, 3).mean(axis=0)
            return {"2048": means.astype(np.float32), "logits_unbiased": means.astype(np.float32)}

    store = make_run(tmp_path / "run", 0.1, count=5)
    networks = MetricNetworks("vgg", nothing.lpips, Means(), "means")
    score_run(store, networks)
    found = by_name(summarise_run(store, networks))
    assert found["fid"].n == 5 and found["fid"].mean >= 0
    assert "at least 10" in found["inception_score"].reason


def test_comparing_two_runs(tmp_path: Path, nothing: MetricNetworks) -> None:
    before, after = make_run(tmp_path / "a", 0.2), make_run(tmp_path / "b", 0.1)
    for store in (before, after):
        score_run(store, nothing)
    found = {d.name: d for d in compare_runs(before, after)}
    assert found["psnr"].n == 6 and 0 < found["psnr"].low <= found["psnr"].mean <= found["psnr"].high
    assert found["residual"].mean == found["residual"].low == found["residual"].high == 0


def test_runs_of_other_truths_are_not_compared(tmp_path: Path, nothing: MetricNetworks) -> None:
    before = make_run(tmp_path / "a" / "run", 0.2, count=2)
    after = RunStore(tmp_path / "b" / "run", kind="evaluate", settings={}, root=tmp_path / "b")
    with after.open():
        for i in range(2):
            truth = photograph(seed=1, noise=0.01)
            files = {"truth": (f"truths/{i}.png", png_bytes(truth)), "restoration0": (f"run/{i}.png", png_bytes(truth))}
            after.finish(str(i), {"residual": [1.0]}, files)
    for store in (before, after):
        score_run(store, nothing)
    with pytest.raises(ValueError, match="other truths of 2 images, 0 the first"):
        compare_runs(before, after)


def test_a_report_of_a_run_without_any_restored_image(tmp_path: Path, nothing: MetricNetworks) -> None:
    store = make_run(tmp_path / "run", 0.1, count=0)
    with store.open():
        store.finish("0", {"error": "left the finite numbers (sample 0 at step 3)"})
    assert write_report([store], nothing) == tmp_path / "report.html"
    assert "left the finite numbers (sample 0 at step 3)" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("shape", "known"), [((3, 48, 48), True), ((1, 24, 24), True), ((3, 10, 10), True), ((3, 96, 96), False)]
)
def test_a_measurement_is_scored_as_it_is_seen(shape: tuple[int, ...], known: bool, tmp_path: Path) -> None:
    """Also grey, small, and small by a factor that does not divide the side; oversampled amplitudes never."""
    root = tmp_path / "out"
    store = RunStore(root / "run", kind="evaluate", settings={}, root=root)
    y = np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    grey = np.full((48, 48, 3), 128, np.uint8)
    files = {
        "restoration0": ("r.png", png_bytes(grey)),
        "truth": ("t.png", png_bytes(grey)),
        "measurement": ("y.npy", npy(y)),
    }
    with store.open():
        store.finish("a", {"residual": [1.0]}, files)
    picture = measured_picture(store, store.entries()["a"], 48)
    assert (picture is not None) == known
    if picture is not None:
        factor = -(-48 // shape[-1])
        repeated = np.kron(y, np.ones((1, factor, factor)))[:, :48, :48]
        expected = np.broadcast_to(np.rint((repeated + 1) * 127.5), (3, 48, 48)).transpose(1, 2, 0)
        assert np.abs(picture - expected).max() <= 1
