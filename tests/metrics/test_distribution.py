"""Distances of two sets of pictures against torch-fidelity's own functions and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pag_inverse.metrics.distribution import Inception, cached_features, distances, frechet_distance
from pag_inverse.metrics.networks import MetricNetworks

RNG = np.random.default_rng(0)


def picture(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


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

    def network(pixels: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(int(pixels[0, 0, 0]))
        return {"2048": np.full(4, pixels.mean(), np.float32), "logits_unbiased": np.zeros(3, np.float32)}

    one, other = picture(16), picture(16, seed=1)
    first = cached_features(tmp_path, "x", one, network, "weights")
    again = cached_features(tmp_path, "x", one, network, "weights")
    assert len(seen) == 1 and np.array_equal(first["2048"], again["2048"])
    cached_features(tmp_path, "x", other, network, "weights")
    cached_features(tmp_path, "x", one, network, "other weights")
    assert len(seen) == 3
    for file in tmp_path.glob("x.*.npz"):
        file.write_bytes(b"torn")
    assert np.array_equal(cached_features(tmp_path, "x", one, network, "weights")["2048"], first["2048"])


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
    found = Inception(tmp_path / "weights.pth")(picture(32))
    assert {k: v.shape for k, v in found.items()} == {"2048": (2048,), "logits_unbiased": (1008,)}
    networks = MetricNetworks.load(inception=tmp_path / "none.pth")
    assert "not the weights" in str(networks.inception)
