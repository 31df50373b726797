"""The networks that metrics are computed with, from local weights; where one is missing, the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pag_inverse.metrics.distribution import NAMES, VARIANT, WEIGHTS, Inception
from pag_inverse.metrics.perceptual import Lpips, Unavailable, read_weights

Network = TypeVar("Network")


@dataclass(frozen=True)
class MetricNetworks:
    """LPIPS and Inception, or in place of one the reason why it cannot be used.

    `lpips_net` is vgg or alex; `inception_sha256` names the weights, with which features are kept.
    """

    lpips_net: str
    lpips: Lpips | str
    inception: Inception | str
    inception_sha256: str = ""

    @classmethod
    def load(
        cls, lpips_net: str = "vgg", lpips: Path | None = None, inception: Path | None = None, device: str = "cpu"
    ) -> MetricNetworks:
        """Load them from local weights; nothing is fetched, and a missing one stops nothing."""
        digest = hashlib.sha256(inception.read_bytes()).hexdigest() if inception and inception.is_file() else ""
        return cls(
            lpips_net,
            _or_reason(lambda: Lpips(lpips_net, lpips, device)),
            _or_reason(lambda: _inception(inception, device)),
            digest,
        )

    def variants(self) -> dict[str, str]:
        """How each metric is computed, to be named beside it."""
        return {
            "psnr": "8-bit RGB, data range 255",
            "ssim": "scikit-image, window 7, data range 255",
            "lpips": f"lpips 0.1, {self.lpips_net}",
            "residual": "||y - A x|| / (sigma sqrt m) over what was measured; about 1 is right",
            **{name: VARIANT for name in NAMES},
        }


def _or_reason(load: Callable[[], Network]) -> Network | str:
    try:
        return load()
    except Unavailable as reason:
        return str(reason)


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
