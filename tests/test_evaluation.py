"""Metrics against the packages that define them, and what is saved against damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pag_inverse.metrics.distribution import Inception, cached_features, distances, frechet_distance
from pag_inverse.evaluation.scores import Instruments, Metric, compare, read_scores, score_cell, summarise
from pag_inverse.data.images import bundled_photograph, prepare, to_uint8
from pag_inverse.metrics.paired import psnr, ssim
from pag_inverse.metrics.perceptual import Lpips, Unavailable
from pag_inverse.storage.saved import SavedCell, png
from pag_inverse.metrics.statistics import bootstrap_interval

RNG = np.random.default_rng(0)


def photograph(size: int = 48, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    image = prepare(bundled_photograph("chelsea"), size)
    return to_uint8(image + noise * np.random.default_rng(seed).standard_normal(image.shape).astype(np.float32))


def test_psnr_and_ssim_are_scikit_images() -> None:
    truth, picture = photograph(), photograph(noise=0.1)
    assert psnr(picture, truth) == pytest.approx(peak_signal_noise_ratio(truth, picture, data_range=255), abs=1e-6)
    expected = structural_similarity(truth, picture, channel_axis=2, data_range=255)
    assert ssim(picture, truth) == pytest.approx(expected, abs=1e-6)


def test_the_frechet_distance_of_two_gaussians_in_closed_form() -> None:
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    basis = np.linalg.qr(RNG.standard_normal((6, 6)))[0]
    a, b = RNG.uniform(0.5, 2, 6), RNG.uniform(0.5, 2, 6)
    mu = RNG.standard_normal((2, 6))
    expected = ((mu[0] - mu[1]) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(mu[0], basis * a @ basis.T, mu[1], basis * b @ basis.T)
    assert found == pytest.approx(expected, abs=1e-6)


def features(n: int, shift: float) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(n)
    draw = lambda k: rng.standard_normal((n, k)).astype(np.float32) + shift  # noqa: E731
    return [{"2048": f, "logits_unbiased": g} for f, g in zip(draw(16), draw(10), strict=True)]


def test_distances_are_torch_fidelitys_on_the_same_features() -> None:
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    from torch_fidelity.metric_fid import fid_featuresdict_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_featuresdict_to_metric
    from torch_fidelity.metric_kid import kid_featuresdict_to_metric
    from torch_fidelity.metric_prc import prc_featuresdict_to_metric

    restored, truths = features(40, 0.3), features(41, 0.0)
    a, b = ({k: torch.from_numpy(np.stack([f[k] for f in s])).double() for k in s[0]} for s in (restored, truths))
    stats = [fid_featuresdict_to_statistics(side, "2048") for side in (a, b)]
    single = [{k: v.float() for k, v in side.items()} for side in (a, b)]
    kid = kid_featuresdict_to_metric(*single, "2048", kid_subset_size=40, kid_subsets=100, verbose=False)
    prc = prc_featuresdict_to_metric(*single, "2048", verbose=False)
    expected = {
        "fid": fid_statistics_to_metric(*stats, False)["frechet_inception_distance"],
        "kid": kid["kernel_inception_distance_mean"],
        "inception_score": isc_featuresdict_to_metric(a, "logits_unbiased", verbose=False)["inception_score_mean"],
        "precision": prc["precision"],
        "recall": prc["recall"],
    }
    assert distances(restored, truths) == pytest.approx(expected, abs=1e-6)
    few = distances(restored[:3], truths[:3])
    assert isinstance(few["fid"], float) and "at least 4" in str(few["recall"])


def test_features_are_computed_once_a_picture(tmp_path: Path) -> None:
    seen: list[int] = []

    def network(picture: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(int(picture[0, 0, 0]))
        return {"2048": np.full(4, picture.mean(), np.float32), "logits_unbiased": np.zeros(3, np.float32)}

    one, other = photograph(16), photograph(16, noise=0.2)
    first = cached_features(tmp_path, "x", one, network, "weights")
    again = cached_features(tmp_path, "x", one, network, "weights")
    assert len(seen) == 1 and np.array_equal(first["2048"], again["2048"])
    cached_features(tmp_path, "x", other, network, "weights")
    cached_features(tmp_path, "x", one, network, "other weights")
    assert len(seen) == 3
    for file in tmp_path.glob("x.*.npz"):
        file.write_bytes(b"torn")
    assert np.array_equal(cached_features(tmp_path, "x", one, network, "weights")["2048"], first["2048"])


def test_lpips_from_a_local_file_is_the_packages(tmp_path: Path) -> None:
    import lpips
    import torchvision

    torch.manual_seed(0)
    backbone = torchvision.models.alexnet(weights=None)
    weights = tmp_path / "alex.pth"
    torch.save({k: v for k, v in backbone.state_dict().items() if k.startswith("features")}, weights)
    distance = Lpips("alex", weights)
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for block in range(1, 6):
        for name, module in getattr(reference.net, f"slice{block}").named_children():
            module.load_state_dict(backbone.features[int(name)].state_dict())
    truth, picture = photograph(64), photograph(64, noise=0.2)
    a, b = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for p in (picture, truth))
    assert distance(truth, truth) == 0
    assert distance(picture, truth) == pytest.approx(float(reference(a, b)), abs=1e-6)
    with pytest.raises(Unavailable, match="not torchvision's weights of vgg"):
        Lpips("vgg", weights)
    weights.write_bytes(b"torn")
    with pytest.raises(Unavailable, match="not readable"):
        Lpips("alex", weights)


def test_inception_from_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is not installed"
    )
    torch.save({}, tmp_path / "none.pth")
    with monkeypatch.context() as m:
        m.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
        net = module.FeatureExtractorInceptionV3(
            "x", ["2048"], feature_extractor_weights_path=str(tmp_path / "none.pth")
        )
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    found = Inception(tmp_path / "weights.pth")(photograph(32))
    assert {k: v.shape for k, v in found.items()} == {"2048": (2048,), "logits_unbiased": (1008,)}
    instruments = Instruments.gather(inception=tmp_path / "none.pth")
    assert "not the weights" in str(instruments.inception)


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instruments:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    return Instruments.gather()


def make_cell(folder: Path, noise: float, count: int = 6, samples: int = 1) -> SavedCell:
    cell = SavedCell(folder)
    cell.start({"task": "gaussian_deblur"})
    for i in range(count):
        pictures = [photograph(noise=noise + 0.02 * i, seed=s) for s in range(samples)]
        files = {"truth": (cell.root / "truths" / f"{i}.png", png(photograph()))}
        files |= {f"restoration{s}": (folder / f"{i}_{s}.png", png(p)) for s, p in enumerate(pictures)}
        cell.finish(0, {"image": str(i), "residual": [1.0] * samples}, files)
    return cell


def by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def test_scores_are_those_of_the_files_and_shards_merge(tmp_path: Path, nothing: Instruments) -> None:
    cell = make_cell(tmp_path / "cell", 0.1, samples=2)
    for rank in range(2):
        score_cell(cell, nothing, rank=rank, world=2)
    scores = read_scores(cell)
    assert list(scores) == [str(i) for i in range(6)]
    assert scores["3"][1]["psnr"] == psnr(photograph(noise=0.16, seed=1), photograph())
    found = by_name(summarise(cell, nothing))
    assert found["psnr"].n == 6 and found["psnr"].low < found["psnr"].mean < found["psnr"].high
    assert found["psnr"].worst < found["psnr"].mean < found["psnr"].best and found["psnr"].spread > 0
    assert found["lpips"].mean is None and "--lpips-weights" in found["lpips"].reason
    assert found["fid"].mean is None and found["fid"].reason


def test_distribution_metrics_of_a_cell(tmp_path: Path, nothing: Instruments, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")

    class Stub(Inception):
        def __init__(self) -> None: ...

        def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
            means = picture.reshape(-1, 3).mean(axis=0)
            return {"2048": means.astype(np.float32), "logits_unbiased": means.astype(np.float32)}

    cell = make_cell(tmp_path / "cell", 0.1, count=5)
    instruments = Instruments("vgg", nothing.lpips, Stub(), "stub")
    score_cell(cell, instruments)
    found = by_name(summarise(cell, instruments))
    assert found["fid"].n == 5 and found["fid"].mean >= 0
    assert "at least 10" in found["inception_score"].reason


def test_comparing_two_cells(tmp_path: Path, nothing: Instruments) -> None:
    a, b = make_cell(tmp_path / "a", 0.2), make_cell(tmp_path / "b", 0.1)
    for cell in (a, b):
        score_cell(cell, nothing)
    found = {d.name: d for d in compare(a, b)}
    assert found["psnr"].n == 6 and 0 < found["psnr"].low <= found["psnr"].mean <= found["psnr"].high
    assert found["residual"].mean == found["residual"].low == found["residual"].high == 0


def test_the_bootstrap_interval_is_near_the_normal_one() -> None:
    values = RNG.standard_normal(400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert bootstrap_interval(values) == (low, high)


def test_only_whole_images_are_finished(tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "cell", 0.1, count=4)
    ids = [str(i) for i in range(5)]
    (cell.folder / "1_0.png").write_bytes((cell.folder / "1_0.png").read_bytes()[:-9])
    (cell.folder / "2_0.png").unlink()
    lines = (cell.folder / "rank-000.jsonl").read_bytes()
    (cell.folder / "rank-000.jsonl").write_bytes(lines[:-20])
    finished, said = cell.sort_out(ids)
    assert finished == {"0"}
    assert len(said) == 3 and "1 damaged lines" in said[0] and "1_0.png is damaged" in said[1] and "missing" in said[2]
    with pytest.raises(ValueError, match=r"task 'gaussian_deblur' \(now 'box'\)"):
        cell.check({"task": "box"})
    (cell.folder / "settings.json").write_text("{")
    with pytest.raises(ValueError, match="--overwrite"):
        cell.check({"task": "gaussian_deblur"})


def test_the_latest_whole_line_counts(tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "cell", 0.1, count=1)
    old = (cell.folder / "rank-000.jsonl").read_bytes()
    (cell.folder / "rank-003.jsonl").write_bytes(old)  # an older process with a higher number
    path = cell.folder / "0_0.png"
    truth = (cell.root / "truths" / "0.png", png(photograph()))
    cell.finish(0, {"image": "0", "residual": [2.0]}, {"truth": truth, "restoration0": (path, png(photograph()))})
    assert cell.sort_out(["0"]) == ({"0"}, [])
    cell.finish(1, {"image": "0", "error": "unreadable", "retry": True}, {})
    assert cell.entries()[0]["0"]["residual"] == [2.0]
    assert json.loads(old)["residual"] == [1.0]
