"""The networks that metrics are computed with, from local weights; where one is missing, the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pag_inverse.metrics.distribution import NAMES, VARIANT, WEIGHTS, Inception
from pag_inverse.metrics.perceptual import Lpips, Unavailable, read_weights
from pag_inverse.settings import settings
from pag_inverse.settings.files import check_file

Network = TypeVar("Network")


@settings
class MetricsRequest:
    """What metrics are computed with: the network of LPIPS, and local files of weights."""

    lpips_net: Literal["vgg", "alex"] = "vgg"
    lpips_weights: Path | None = None
    inception_weights: Path | None = None

    def check(self) -> None:
        """ValueError where a file that is given is not there, or cannot be used."""
        for path in (self.lpips_weights, self.inception_weights):
            if path is not None:
                check_file(path)
        if self.lpips_weights or self.inception_weights:
            found = self.load("cpu")
            for path, network in ((self.lpips_weights, found.lpips), (self.inception_weights, found.inception)):
                if path is not None and isinstance(network, str):
                    raise ValueError(network)

    def load(self, device: str) -> MetricNetworks:
        """The networks, or the reason in the place of one."""
        device = "cpu" if device == "mps" else device
        return MetricNetworks.load(self.lpips_net, self.lpips_weights, self.inception_weights, device)


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
