"""Metrics of what an evaluation saved: scores of each image, their summary, and the paired comparison of two runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pag_inverse.data.arrays import read_saved
from pag_inverse.data.images import Picture, from_uint8, prepare, read_picture, to_uint8
from pag_inverse.evaluation.entries import ScoreLine
from pag_inverse.metrics.distribution import NAMES, Inception, cached_features, distances
from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.metrics.paired import psnr, ssim
from pag_inverse.metrics.summary import PAIRED, Difference, Metric, Scores, difference, summarise
from pag_inverse.storage.entries import Entry
from pag_inverse.storage.run_store import RunStore

LINES = "scores"  # scores-NNN.jsonl


def score_run(store: RunStore, networks: MetricNetworks, rank: int = 0, world: int = 1) -> None:
    """Score this process's part of the restored images from their files; what has its scores already stays."""
    entries, known = restored(store), _known(store, networks.lpips_net)
    for image_id in list(entries)[rank::world]:
        entry = entries[image_id]
        have = known.get(_key(store, entry))
        if have is not None and (isinstance(networks.lpips, str) or "lpips" in have["scores"][0]):
            continue
        truth = read_picture(store.path(entry, "truth"))
        scores = [
            _score(metric_picture(store, entry, s, len(truth)), truth, residual, networks)
            for s, residual in enumerate(entry["residual"])
        ]
        line: dict[str, Any] = {"key": _key(store, entry), "lpips_net": networks.lpips_net, "scores": scores}
        shown = measured_picture(store, entry, len(truth))
        if shown is not None:
            line["measurement"] = _picture_scores(shown, truth, networks)
        store.append(LINES, line)
        if not isinstance(networks.inception, str):
            features_of(store, entry, networks.inception, networks.inception_sha256)


def metric_picture(store: RunStore, entry: Entry, sample: int, side: int) -> Picture:
    """A restoration at the side of the metrics: a larger one is reduced as the run's settings say."""
    picture = read_picture(store.path(entry, f"restoration{sample}"))
    if len(picture) == side:
        return picture
    return to_uint8(prepare(from_uint8(picture), side, _resize(store)))


def _resize(store: RunStore) -> Any:
    return store.settings.get("resize", "bicubic")


def measured_picture(store: RunStore, entry: Entry, side: int) -> Picture | None:
    """A measurement at the side of the metrics, its pixels repeated; None where it is no picture.

    A picture has one or three channels, and is as large as the restoration or a whole number of times smaller.
    """
    if "measurement" not in entry["files"]:
        return None
    y, whole = read_saved(store.path(entry, "measurement")), len(read_picture(store.path(entry, "restoration0")))
    factor = -(-whole // max(y.shape[-1], 1))
    small = -(-whole // factor)
    if y.shape not in ((1, small, small), (3, small, small)):
        return None
    enlarged = y.repeat(factor, axis=1).repeat(factor, axis=2)[:, :whole, :whole]
    picture = to_uint8(enlarged.astype(np.float32))
    return picture if whole == side else to_uint8(prepare(from_uint8(picture), side, _resize(store)))


def restored(store: RunStore) -> dict[str, Entry]:
    """The entries of the images that did not fail, by id and sorted."""
    return {image_id: entry for image_id, entry in store.entries().items() if "error" not in entry}


def read_scores(store: RunStore, lpips_net: str = "vgg") -> Scores:
    """The scores of the restored images, as far as they are computed, sorted by image id."""
    known = _known(store, lpips_net)
    found = {image_id: known.get(_key(store, entry)) for image_id, entry in restored(store).items()}
    return {image_id: [_numbers(s) for s in line["scores"]] for image_id, line in found.items() if line is not None}


def read_any_scores(store: RunStore) -> Scores:
    """Scores whichever LPIPS network they were made with: the other metrics are the same."""
    return read_scores(store, "vgg") or read_scores(store, "alex")


def summarise_run(store: RunStore, networks: MetricNetworks) -> list[Metric]:
    """Every metric of a run."""
    scores = read_scores(store, networks.lpips_net)
    reasons = {"lpips": networks.lpips} if isinstance(networks.lpips, str) else {}
    paired = [summarise(name, scores, reasons.get(name, "no images")) for name in PAIRED]
    return [*paired, *distribution_metrics(store, list(scores), networks)]


def summarise_measurements(store: RunStore, networks: MetricNetworks) -> list[Metric]:
    """The metrics of the measurements themselves; none where they are no pictures."""
    known = _known(store, networks.lpips_net)
    lines = {i: known.get(_key(store, entry), {}).get("measurement") for i, entry in restored(store).items()}
    scores = {i: [_numbers(line)] for i, line in lines.items() if line is not None}
    found = (summarise(name, scores) for name in PAIRED if name != "residual")
    return [metric for metric in found if metric.mean is not None]


def distribution_metrics(store: RunStore, ids: Sequence[str], networks: MetricNetworks) -> list[Metric]:
    """FID and its kin of the first samples against the truths of the same images."""
    if isinstance(networks.inception, str):
        return [Metric(name, reason=networks.inception) for name in NAMES]
    entries = restored(store)
    pairs = [features_of(store, entries[i], networks.inception, networks.inception_sha256) for i in ids]
    found = distances([mine for mine, _ in pairs], [truth for _, truth in pairs])
    return [
        Metric(name, reason=value) if isinstance(value, str) else Metric(name, len(ids), value)
        for name, value in found.items()
    ]


def features_of(store: RunStore, entry: Entry, inception: Inception, key: str) -> tuple[Any, Any]:
    """The features of an image's first restoration and of its truth."""
    image_id, truth = entry[store.item], read_picture(store.path(entry, "truth"))
    mine = metric_picture(store, entry, 0, len(truth))
    return (
        cached_features(store.folder / "features", image_id, mine, inception, key),
        cached_features(store.root / "truths" / "features", image_id, truth, inception, key),
    )


def compare_runs(before: RunStore, after: RunStore, lpips_net: str = "vgg") -> list[Difference]:
    """AFTER - BEFORE of each paired metric over the images that both have; ValueError where they have none."""
    scores = read_scores(before, lpips_net), read_scores(after, lpips_net)
    common = [image_id for image_id in scores[0] if image_id in scores[1]]
    if not common:
        raise ValueError(f"{before.folder} and {after.folder} have no scored images in common")
    hashes = [
        {i: entry["files"]["truth"]["sha256"] for i, entry in restored(store).items()} for store in (before, after)
    ]
    other = [i for i in common if hashes[0][i] != hashes[1][i]]
    if other:
        raise ValueError(
            f"{before.folder} and {after.folder} have other truths of {len(other)} images, {other[0]} the first"
        )
    found = (difference(name, *scores) for name in PAIRED)
    return [value for value in found if value is not None]


def _score(picture: Picture, truth: Picture, residual: float, networks: MetricNetworks) -> dict[str, float]:
    return {**_picture_scores(picture, truth, networks), "residual": residual}


def _picture_scores(picture: Picture, truth: Picture, networks: MetricNetworks) -> dict[str, float]:
    found = {"psnr": psnr(picture, truth), "ssim": ssim(picture, truth)}
    if not isinstance(networks.lpips, str):
        found["lpips"] = networks.lpips(picture, truth)
    return found


def _numbers(sample: Mapping[str, float | None]) -> dict[str, float]:
    """A sample's scores; the PSNR of equal pictures is infinite, which is null in JSON."""
    return {name: math.inf if value is None else value for name, value in sample.items()}


def _known(store: RunStore, lpips_net: str) -> dict[str, Entry]:
    return {line["key"]: line for line in store.lines(LINES, ScoreLine) if line["lpips_net"] == lpips_net}


def _key(store: RunStore, entry: Entry) -> str:
    """An image and the pixels that were scored."""
    files = entry["files"]
    hashes = [files[kind]["sha256"][:16] for kind in sorted(files) if kind == "truth" or kind.startswith("restoration")]
    return "|".join([entry[store.item], *hashes])
