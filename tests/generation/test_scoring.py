"""Metrics of samples against torch-fidelity's functions on the same features, and closed forms of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pag_inverse.data.images import png_bytes, write_png
from pag_inverse.generation.scoring import Reference, figures, score_run
from pag_inverse.generation.writing import SampleEntry, grid, grid_entries
from pag_inverse.metrics.diversity import mean_pairwise, pixel_distance
from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.storage.run_store import RunStore

SIDE, COUNT = 8, 12


class Patches:
    """In place of Inception: the means of the quarters of a picture by channel, and as many logits."""

    def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        half = SIDE // 2
        means = picture.reshape(2, half, 2, half, 3).mean(axis=(1, 3)).reshape(-1).astype(np.float32) / 64
        return {"2048": means, "logits_unbiased": means}


def networks() -> MetricNetworks:
    return MetricNetworks("vgg", "no weights", Patches(), "patches")  # type: ignore[arg-type]


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(128, 40, (SIDE, SIDE, 3)) + rng.normal(0, 60, 3), 0, 255).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """A run of twelve pictures, two of each prompt."""
    made = RunStore(
        tmp_path / "run", kind="sample", settings={"size": SIDE}, entry=SampleEntry, item="sample"
    )  # fmt: skip
    with made.open():
        for i in range(COUNT):
            entry = {"label": None, "prompt": f"prompt {i // 2}", "seconds": 1.0}
            made.finish(f"{i:06d}", entry, {"sample": (f"samples/{i:06d}.png", png_bytes(picture(i)))})
    return made


def names() -> list[str]:
    return [f"{i:06d}" for i in range(COUNT)]


def test_distances_to_a_folder_are_torch_fidelitys(store: RunStore, tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    from torch_fidelity.metric_fid import fid_featuresdict_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_featuresdict_to_metric
    from torch_fidelity.metric_prc import prc_featuresdict_to_metric

    (tmp_path / "real").mkdir()
    for i in range(15):
        write_png(tmp_path / "real" / f"{i:02d}.png", picture(100 + i))
    reference = Reference.of(tmp_path / "real", tmp_path)
    for rank in range(2):
        score_run([(store, names())], networks(), reference, rank, 2)
    found = figures(store, names(), networks(), reference)
    sides = [[Patches()(picture(i))["2048"] for i in part] for part in (range(COUNT), range(100, 115))]
    a, b = ({"2048": torch.from_numpy(np.stack(side))} for side in sides)
    stats = [fid_featuresdict_to_statistics({"2048": side["2048"].double()}, "2048") for side in (a, b)]
    prc = prc_featuresdict_to_metric(a, b, "2048", verbose=False)
    scored = isc_featuresdict_to_metric({"logits_unbiased": a["2048"]}, "logits_unbiased", verbose=False)
    assert found["fid"] == pytest.approx(
        fid_statistics_to_metric(*stats, False)["frechet_inception_distance"], rel=1e-4
    )
    assert (found["precision"], found["recall"]) == pytest.approx((prc["precision"], prc["recall"]))
    assert found["inception_score"] == pytest.approx(scored["inception_score_mean"], rel=1e-5)


def test_a_reference_batch_of_adm(store: RunStore, tmp_path: Path) -> None:
    """Pictures in arr_0 count as those of a folder do; without mu and sigma FID is of them."""
    batch = np.stack([picture(100 + i) for i in range(15)])
    np.savez(tmp_path / "batch.npz", arr_0=batch)
    (tmp_path / "real").mkdir()
    for i, real in enumerate(batch):
        write_png(tmp_path / "real" / f"{i:02d}.png", real)
    found = [
        figures(store, names(), networks(), Reference.of(tmp_path / place, tmp_path / "cache"))
        for place in ("batch.npz", "real")
    ]
    assert found[0] == found[1] and isinstance(found[0]["fid"], float)


def test_without_weights_or_reference_it_says_what_is_missing(store: RunStore) -> None:
    found = figures(store, names(), MetricNetworks("vgg", "no vgg", "no inception"), None)
    assert found["fid"] == found["recall"] == "no inception" and found["lpips_diversity"] == "no vgg"
    with_network = figures(store, names(), networks(), None)
    assert "no --reference" in str(with_network["fid"]) and isinstance(with_network["inception_score"], float)


def test_the_diversity_of_a_prompt_is_that_of_its_pictures(store: RunStore) -> None:
    pairs = [pixel_distance(picture(2 * i), picture(2 * i + 1)) for i in range(COUNT // 2)]
    found = figures(store, names(), MetricNetworks("vgg", "no vgg", "no inception"), None)
    assert found["pixel_diversity"] == pytest.approx(np.mean(pairs))
    assert pixel_distance(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 7, np.uint8)) == 7.0
    assert mean_pairwise([[picture(1)]], pixel_distance) is None
    assert mean_pairwise([[picture(1), picture(1)], [picture(2)]], pixel_distance) == 0.0


def test_a_grid_has_a_row_for_each_prompt(store: RunStore) -> None:
    shown = grid_entries(list(store.entries().values()))
    assert [entry["prompt"] for entry in shown] == [f"prompt {i // 2}" for i in range(COUNT)]
    sheet = grid([picture(0), picture(1), picture(2)], 2)
    assert sheet.shape == (2 * SIDE + 2, 2 * SIDE + 2, 3)
    assert np.array_equal(sheet[SIDE + 2 :, :SIDE], picture(2)) and bool((sheet[SIDE + 2 :, SIDE:] == 255).all())
