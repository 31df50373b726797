"""Distances of two sets of pictures: FID, KID, inception score, precision and recall, by torch-fidelity's functions.

The features of each picture are kept beside it, so that what several processes made merges and nothing is computed
twice. Figures depend on the network's weights and its resizing: VARIANT is named beside every one.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pag_inverse.data.files import write_whole

VARIANT = "torch-fidelity, Inception 2015-12-05, bilinear to 299 as TensorFlow 1"
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
NAMES = ("fid", "kid", "inception_score", "precision", "recall")
LAYERS = ("2048", "logits_unbiased")
NEIGHBOURHOOD, KID_SUBSETS, KID_SUBSET_SIZE, SPLITS, SEED = 3, 100, 1000, 10, 2020

Features = dict[str, NDArray[np.float32]]


class Inception:
    """The network of these metrics: a picture (H, W, 3), uint8, to its features (2048) and logits (1008)."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        """From a local file; ImportError without torch-fidelity."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        network = FeatureExtractorInceptionV3("inception", list(LAYERS), feature_extractor_weights_path=str(weights))
        self.device, self._network = device, network.to(device)

    def __call__(self, picture: NDArray[np.uint8]) -> Features:
        import torch

        with torch.no_grad():
            found = self._network(torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].to(self.device))
        return {layer: f[0].cpu().numpy() for layer, f in zip(LAYERS, found, strict=True)}


def cached_features(
    folder: Path, name: str, picture: NDArray[np.uint8], network: Callable[[NDArray[np.uint8]], Features], key: str
) -> Features:
    """A picture's features, read from `folder` where those of the same pixels and weights (`key`) lie there."""
    digest = hashlib.sha256(picture.tobytes() + key.encode()).hexdigest()[:16]
    path = folder / f"{name}.{digest}.npz"
    try:
        with np.load(path) as file:
            return {layer: file[layer] for layer in LAYERS}
    except (OSError, ValueError, KeyError, EOFError):
        found = network(picture)
    buffer = io.BytesIO()
    arrays: Any = {layer: found[layer] for layer in LAYERS}
    np.savez(buffer, **arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
    return found


def distances(restored: Sequence[Features], truths: Sequence[Features]) -> dict[str, float | str]:
    """Each of NAMES, or why there are too few pictures for it."""
    import torch

    n = min(len(restored), len(truths))
    if n < 2:
        return {name: f"{n} pictures; it needs at least 2" for name in NAMES}
    a, b = (torch.from_numpy(np.stack([f["2048"] for f in side])) for side in (restored, truths))
    found: dict[str, float | str] = {"fid": fid(a, b), "kid": kid(a, b)}
    few = f"{n} pictures; it needs at least "
    found["inception_score"] = inception_score(restored)
    enough = n > NEIGHBOURHOOD
    pair = precision_recall(a, b) if enough else (f"{few}{NEIGHBOURHOOD + 1}",) * 2
    return {**found, "precision": pair[0], "recall": pair[1]}


def inception_score(features: Sequence[Features]) -> float | str:
    """exp of the mean divergence of a picture's classes from those of all, in ten parts; or why there is none."""
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    if len(features) < SPLITS:
        return f"{len(features)} pictures; it needs at least {SPLITS}"
    logits = torch.from_numpy(np.stack([f["logits_unbiased"] for f in features]))
    return float(isc_features_to_metric(logits, SPLITS, True, SEED)["inception_score_mean"])


def fid(a: Any, b: Any) -> float:
    """The Fréchet distance of the Gaussians that fit two sets of features (N, D)."""
    return frechet_distance(*statistics(a), *statistics(b))


def statistics(features: Any) -> tuple[Any, Any]:
    """The mean (D,) and the covariance (D, D) of features (N, D), float64."""
    from torch_fidelity.metric_fid import fid_features_to_statistics

    found = fid_features_to_statistics(features.double())
    return found["mu"], found["sigma"]


def frechet_distance(mu1: Any, sigma1: Any, mu2: Any, sigma2: Any) -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)) of two Gaussians (D,), (D, D), float64."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    stats = {"mu": mu1, "sigma": sigma1}, {"mu": mu2, "sigma": sigma2}
    return float(fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID])


def kid(a: Any, b: Any) -> float:
    """The kernel distance (cubic kernel, mean over subsets of 1000, or of all where there are fewer)."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(KID_SUBSET_SIZE, len(a), len(b))
    subsets = KID_SUBSETS if size < max(len(a), len(b)) else 1  # all subsets of everything are one
    found = kid_features_to_metric(
        a, b, kid_subsets=subsets, kid_subset_size=size, kid_kernel="poly", rng_seed=SEED, verbose=False
    )
    return float(found[KEY_METRIC_KID_MEAN])


def precision_recall(a: Any, b: Any) -> tuple[float, float]:
    """Of restorations `a` against truths `b`, 3 neighbours."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    found = prc_features_to_metric(a, b, prc_neighborhood=NEIGHBOURHOOD, verbose=False)
    return float(found[KEY_METRIC_PRECISION]), float(found[KEY_METRIC_RECALL])
