"""Metrics of what an evaluation saved: scores an image, their summary, and the paired comparison of two cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pag_inverse.metrics.distribution import NAMES, VARIANT, WEIGHTS, Inception, cached_features, distances
from pag_inverse.data.images import Picture, from_uint8, prepare, to_uint8
from pag_inverse.storage.json_lines import append_line, read_lines
from pag_inverse.metrics.paired import psnr, ssim
from pag_inverse.metrics.perceptual import Lpips, Unavailable, read_weights
from pag_inverse.storage.saved import SavedCell, hash_of
from pag_inverse.metrics.statistics import bootstrap_interval, estimate

PAIRED = ("psnr", "ssim", "lpips", "residual")


@dataclass(frozen=True)
class Instruments:
    """What metrics are computed with; where a network is not to be had, the reason is in its place."""

    lpips_net: str
    lpips: Lpips | str
    inception: Inception | str
    inception_key: str = ""

    @classmethod
    def gather(
        cls, lpips_net: str = "vgg", lpips: Path | None = None, inception: Path | None = None, device: str = "cpu"
    ) -> Instruments:
        """Load the networks from local weights; nothing is fetched, and a missing one stops nothing."""
        found: list[Any] = []
        for make in (lambda: Lpips(lpips_net, lpips, device), lambda: _inception(inception, device)):
            try:
                found.append(make())
            except Unavailable as reason:
                found.append(str(reason))
        key = hash_of(inception) if inception else None
        return cls(lpips_net, found[0], found[1], key or "")

    def variants(self) -> dict[str, str]:
        """How each metric is computed, to be named beside it."""
        return {
            "psnr": "8-bit RGB, data range 255",
            "ssim": "scikit-image, window 7, data range 255",
            "lpips": f"lpips 0.1, {self.lpips_net}",
            "residual": "||y - A x|| / (sigma sqrt m) over what was measured; about 1 is right",
            **{name: VARIANT for name in NAMES},
        }


@dataclass(frozen=True)
class Metric:
    """A cell's figure: the mean over n images with its 95 % interval; or the reason why there is none.

    Of several samples an image counts with their mean; `spread` is their mean standard deviation, `worst` and `best`
    are the means over images of each one's worst and best sample.
    """

    name: str
    n: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    spread: float | None = None
    worst: float | None = None
    best: float | None = None


Scores = dict[str, list[dict[str, float]]]  # image id -> one entry a sample


def score_cell(cell: SavedCell, instruments: Instruments, *, rank: int = 0, world: int = 1, anew: bool = False) -> None:
    """Score this process's part of the restored images from their files into `scores-NNN.jsonl`.

    What is scored with the same instruments stays.
    """
    entries, _ = cell.entries()
    known = _known(cell, instruments.lpips_net)
    for image_id in restored_ids(entries)[rank::world]:
        entry = entries[image_id]
        if (have := known.get(_key(entry))) and (isinstance(instruments.lpips, str) or "lpips" in have["scores"][0]):
            continue
        truth = cell.picture(entry, "truth")
        pictures = [metric_picture(cell, entry, s, truth.shape[0]) for s in range(len(entry["residual"]))]
        scores = [_score(p, truth, r, instruments) for p, r in zip(pictures, entry["residual"], strict=True)]
        line = {"key": _key(entry), "lpips_net": instruments.lpips_net, "scores": scores}
        append_line(cell.folder / f"scores-{rank:03d}.jsonl", line)
        if not isinstance(instruments.inception, str):
            features_of(cell, image_id, entry, instruments)


def metric_picture(cell: SavedCell, entry: dict[str, Any], sample: int, size: int) -> Picture:
    """A restoration at the size of the metrics: a larger one is reduced as the cell's settings say."""
    picture = cell.picture(entry, f"restoration{sample}")
    if picture.shape[0] == size:
        return picture
    resize = (cell.settings() or {}).get("resize", "bicubic")
    return to_uint8(prepare(from_uint8(picture), size, resize))


def read_scores(cell: SavedCell, lpips_net: str = "vgg") -> Scores:
    """The scores of the restored images, as far as they are computed, sorted by image id."""
    entries, _ = cell.entries()
    known = _known(cell, lpips_net)
    found = {i: known.get(_key(entries[i])) for i in restored_ids(entries)}
    return {image_id: line["scores"] for image_id, line in found.items() if line is not None}


def restored_ids(entries: dict[str, dict[str, Any]]) -> list[str]:
    return [image_id for image_id, entry in entries.items() if "error" not in entry]


def summarise(cell: SavedCell, instruments: Instruments) -> list[Metric]:
    """Every metric of a cell."""
    scores = read_scores(cell, instruments.lpips_net)
    paired = [paired_metric(name, scores, instruments) for name in PAIRED]
    return [*paired, *distribution_metrics(cell, list(scores), instruments)]


def paired_metric(name: str, scores: Scores, instruments: Instruments) -> Metric:
    images = [[sample[name] for sample in samples if name in sample] for samples in scores.values()]
    images = [samples for samples in images if samples]
    if not images:
        missing = instruments.lpips if name == "lpips" and isinstance(instruments.lpips, str) else "no images"
        return Metric(name, reason=missing)
    found = estimate([float(np.mean(samples)) for samples in images])
    ends = (None, None) if found.n == 1 else (found.mean - found.half, found.mean + found.half)
    metric = Metric(name, found.n, found.mean, *ends)
    if max(map(len, images)) == 1:
        return metric
    spread = float(np.mean([np.std(samples, ddof=1) for samples in images if len(samples) > 1]))
    low, high = (float(np.mean([pick(samples) for samples in images])) for pick in (min, max))
    worst, best = (low, high) if name in ("psnr", "ssim") else (high, low)
    return Metric(name, metric.n, metric.mean, metric.low, metric.high, "", spread, worst, best)


def distribution_metrics(cell: SavedCell, ids: Sequence[str], instruments: Instruments) -> list[Metric]:
    """FID and its kin of the first samples against the truths of the same images."""
    if isinstance(instruments.inception, str):
        return [Metric(name, reason=instruments.inception) for name in NAMES]
    entries, _ = cell.entries()
    pairs = [features_of(cell, image_id, entries[image_id], instruments) for image_id in ids]
    found = distances([a for a, _ in pairs], [b for _, b in pairs])
    return [
        Metric(name, reason=value) if isinstance(value, str) else Metric(name, len(ids), value)
        for name, value in found.items()
    ]


def features_of(cell: SavedCell, image_id: str, entry: dict[str, Any], instruments: Instruments) -> tuple[Any, Any]:
    """The features of an image's first restoration and of its truth."""
    assert not isinstance(instruments.inception, str)
    truth, key = cell.picture(entry, "truth"), instruments.inception_key
    restored = metric_picture(cell, entry, 0, truth.shape[0])
    mine = cached_features(cell.folder / "features", image_id, restored, instruments.inception, key)
    return mine, cached_features(cell.root / "truths" / "features", image_id, truth, instruments.inception, key)


@dataclass(frozen=True)
class Difference:
    """The mean of b - a over the images of both, with its bootstrap 95 % interval."""

    name: str
    n: int
    mean: float
    low: float
    high: float


def compare(a: SavedCell, b: SavedCell, lpips_net: str = "vgg") -> list[Difference]:
    """Paired differences of two cells over their common images; ValueError where none, or where truths differ."""
    first, second = a.entries()[0], b.entries()[0]
    scores = read_scores(a, lpips_net), read_scores(b, lpips_net)
    common = [i for i in scores[0] if i in scores[1]]
    if not common:
        raise ValueError(f"{a.folder} and {b.folder} have no scored images in common")
    other = [i for i in common if first[i]["files"]["truth"]["sha256"] != second[i]["files"]["truth"]["sha256"]]
    if other:
        raise ValueError(f"{a.folder} and {b.folder} have other truths of {len(other)} images, {other[0]} the first")
    found = []
    for name in PAIRED:
        both = [i for i in common if all(name in side[i][0] for side in scores)]
        values = [_mean(scores[1][i], name) - _mean(scores[0][i], name) for i in both]
        if values:
            found.append(Difference(name, len(values), float(np.mean(values)), *bootstrap_interval(values)))
    return found


def _score(picture: Picture, truth: Picture, residual: float, instruments: Instruments) -> dict[str, float]:
    found = {"psnr": psnr(picture, truth), "ssim": ssim(picture, truth), "residual": residual}
    if not isinstance(instruments.lpips, str):
        found["lpips"] = instruments.lpips(picture, truth)
    return found


def _mean(samples: Sequence[dict[str, float]], name: str) -> float:
    return float(np.mean([sample[name] for sample in samples]))


def _known(cell: SavedCell, lpips_net: str) -> dict[str, dict[str, Any]]:
    lines = [line for path in sorted(cell.folder.glob("scores-*.jsonl")) for line in read_lines(path)[0]]
    return {line["key"]: line for line in lines if line.get("lpips_net") == lpips_net}


def _key(entry: dict[str, Any]) -> str:
    """An image and the pixels that were scored."""
    files = entry["files"]
    hashes = [files[kind]["sha256"][:16] for kind in sorted(files) if kind == "truth" or kind.startswith("restoration")]
    return "|".join([entry["image"], *hashes])


def _inception(weights: Path | None, device: str) -> Inception:
    try:
        import torch_fidelity  # noqa: F401
    except ImportError as error:
        raise Unavailable("torch-fidelity is not installed: pip install 'pag-inverse[evaluation]'") from error
    if weights is None or not weights.is_file():
        raise Unavailable(f"no {WEIGHTS} at {weights or 'hand'}; give its place with --inception-weights")
    read_weights(weights)  # torch-fidelity would run what code a file holds
    try:
        return Inception(weights, device)
    except RuntimeError as error:
        raise Unavailable(f"{weights}: not the weights of {WEIGHTS}") from error
