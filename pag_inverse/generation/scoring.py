"""Metrics of samples: against real pictures (FID, precision, recall), and of the samples alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pag_inverse.data.datasets import find_images
from pag_inverse.data.images import Picture, prepare, read_image, to_uint8
from pag_inverse.generation.writing import pictures, sampled
from pag_inverse.metrics.distribution import (
    NEIGHBOURHOOD,
    Features,
    Inception,
    cached_features,
    fid,
    frechet_distance,
    inception_score,
    precision_recall,
    statistics,
)
from pag_inverse.metrics.diversity import mean_pairwise, pixel_distance
from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.metrics.paired import gradient_magnitude
from pag_inverse.settings.files import check_file
from pag_inverse.storage.entries import Entry
from pag_inverse.storage.run_store import RunStore

NO_REFERENCE = "no --reference: a folder of real pictures, or an .npz of ADM"
WIDTH = 2048  # of the features
Part = tuple[RunStore, Sequence[str]]  # a run and the names of its pictures
Figures = Mapping[str, float | str]  # a metric, or why there is none


@dataclass(frozen=True)
class Reference:
    """Real pictures, and the statistics of their features where a file holds them.

    `files` are the pictures of a folder; `npz` is ADM's reference batch, with `arr_0`, pictures (N, H, W, 3), or `mu`
    (2048,) and `sigma` (2048, 2048), or both. Features are kept in `cache`.
    """

    cache: Path
    files: tuple[Path, ...] = ()
    npz: Path | None = None
    keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path | None, output: Path) -> Reference | None:
        """The reference at a path, None without one; ValueError for a folder without pictures and another file."""
        if path is None:
            return None
        cache = output / "reference_features"
        if path.is_dir():
            return cls(cache, tuple(find_images("folder", path, leave_out=output).values()))
        check_file(path)
        try:
            with np.load(path) as file:
                keys = tuple(file.files)
                shapes = {key: file[key].shape for key in ("mu", "sigma") if key in keys}
        except (OSError, ValueError, AttributeError, EOFError) as error:
            raise ValueError(f"--reference {path}: neither a folder of pictures nor an .npz of arrays") from error
        if shapes != {"mu": (WIDTH,), "sigma": (WIDTH, WIDTH)} and "arr_0" not in keys:
            raise ValueError(f"--reference {path}: it holds neither arr_0 nor mu and sigma of {WIDTH} features")
        return cls(cache, (), path, keys)

    @property
    def statistics(self) -> tuple[Any, Any] | None:
        """The mean and the covariance of the features, where the file holds them."""
        if self.npz is None or not {"mu", "sigma"} <= set(self.keys):
            return None
        with np.load(self.npz) as file:
            return file["mu"].astype(np.float64), file["sigma"].astype(np.float64)

    def pictures(self, side: int, rank: int = 0, world: int = 1) -> Iterator[tuple[str, Picture]]:
        """A process's part of the real pictures by name, as central squares of `side` pixels."""
        for number in range(rank, len(self.files), world):
            yield f"{number:06d}", to_uint8(prepare(read_image(self.files[number]), side))
        if self.npz is not None and "arr_0" in self.keys:
            with np.load(self.npz) as file:
                batch = file["arr_0"]
            yield from ((f"{number:06d}", batch[number]) for number in range(rank, len(batch), world))


def score_run(
    parts: Sequence[Part], networks: MetricNetworks, reference: Reference | None, rank: int = 0, world: int = 1
) -> None:
    """Compute and keep this process's part of the features: of every run's pictures, and of the real ones."""
    if isinstance(networks.inception, str):
        return
    for store, names in parts:
        entries = list(sampled(store, names).items())[rank::world]
        for name, entry in entries:
            features_of(store, name, entry, networks.inception, networks.inception_sha256)
        if entries and reference is not None:
            reference_features(reference, _side(store), networks, rank, world)


def features_of(store: RunStore, name: str, entry: Entry, inception: Inception, key: str) -> Features:
    """The features of a sample."""
    (picture,) = pictures(store, [entry])
    return cached_features(store.folder / "features", name, picture, inception, key)


def reference_features(
    reference: Reference, side: int, networks: MetricNetworks, rank: int = 0, world: int = 1
) -> list[Features]:
    """The features of a process's part of the real pictures."""
    assert not isinstance(networks.inception, str)
    return [
        cached_features(reference.cache, name, picture, networks.inception, networks.inception_sha256)
        for name, picture in reference.pictures(side, rank, world)
    ]


def figures(store: RunStore, names: Sequence[str], networks: MetricNetworks, reference: Reference | None) -> Figures:
    """Every metric of a run, or why there is none."""
    entries = sampled(store, names)
    if not entries:
        return {}
    return {**against_reference(store, entries, networks, reference), **of_samples(store, entries, networks)}


def against_reference(
    store: RunStore, entries: Mapping[str, Entry], networks: MetricNetworks, reference: Reference | None
) -> Figures:
    """FID, inception score, precision and recall (Tables 1 and 2)."""
    if isinstance(networks.inception, str):
        return dict.fromkeys(("fid", "inception_score", "precision", "recall"), networks.inception)
    inception, key = networks.inception, networks.inception_sha256
    mine = [features_of(store, name, entry, inception, key) for name, entry in entries.items()]
    found: dict[str, float | str] = {"inception_score": inception_score(mine)}
    if reference is None:
        return found | dict.fromkeys(("fid", "precision", "recall"), NO_REFERENCE)
    real = reference_features(reference, _side(store), networks)
    return found | _distances(_stacked(mine), _stacked(real) if real else None, reference.statistics)


def of_samples(store: RunStore, entries: Mapping[str, Entry], networks: MetricNetworks) -> Figures:
    """The diversity of the samples of a prompt or class (Table 3), and the sharpness of all."""
    by_condition: dict[Any, list[Entry]] = {}
    for entry in entries.values():
        by_condition.setdefault((entry["prompt"], entry["label"]), []).append(entry)
    groups = [list(pictures(store, group[:8])) for group in by_condition.values() if len(group) > 1]
    single = "one picture of each prompt or class"
    pixels = mean_pairwise(groups, pixel_distance)
    lpips = networks.lpips if isinstance(networks.lpips, str) else mean_pairwise(groups, networks.lpips)
    sharpness = float(np.mean([gradient_magnitude(picture) for picture in pictures(store, list(entries.values()))]))
    return {
        "lpips_diversity": single if lpips is None else lpips,
        "pixel_diversity": single if pixels is None else pixels,
        "sharpness": sharpness,
    }


def _distances(mine: Any, real: Any | None, known: tuple[Any, Any] | None) -> dict[str, float | str]:
    """FID, by the statistics of a file where it has them, and precision and recall."""
    few = f"{len(mine)} pictures; it needs at least "
    if len(mine) < 2:
        return dict.fromkeys(("fid", "precision", "recall"), f"{few}2")
    distance = frechet_distance(*statistics(mine), *known) if known is not None else fid(mine, real)
    if real is None:
        return {"fid": distance, **dict.fromkeys(("precision", "recall"), "the reference holds no pictures")}
    if min(len(mine), len(real)) <= NEIGHBOURHOOD:
        return {"fid": distance, **dict.fromkeys(("precision", "recall"), f"{few}{NEIGHBOURHOOD + 1}")}
    precision, recall = precision_recall(mine, real)
    return {"fid": distance, "precision": precision, "recall": recall}


def _stacked(features: Sequence[Features]) -> Any:
    import torch

    arrays: list[NDArray[np.float32]] = [found["2048"] for found in features]
    return torch.from_numpy(np.stack(arrays))


def _side(store: RunStore) -> int:
    return int(store.settings["size"])
