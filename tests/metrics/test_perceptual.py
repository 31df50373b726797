"""LPIPS from a local file against the lpips package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pag_inverse.metrics.networks import MetricNetworks
from pag_inverse.metrics.perceptual import Lpips, Unavailable


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
    truth, picture = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    a, b = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for p in (picture, truth))
    assert distance(truth, truth) == 0
    assert distance(picture, truth) == pytest.approx(float(reference(a, b)), abs=1e-6)
    with pytest.raises(Unavailable, match="not torchvision's weights of vgg"):
        Lpips("vgg", weights)
    weights.write_bytes(b"torn")
    with pytest.raises(Unavailable, match="not readable"):
        Lpips("alex", weights)


def test_a_missing_file_is_a_reason_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    networks = MetricNetworks.load()
    assert "vgg16-397923af.pth" in str(networks.lpips) and "--lpips-weights" in str(networks.lpips)
    assert "torch-fidelity" in str(networks.inception) or "--inception-weights" in str(networks.inception)
    assert MetricNetworks.load("alex").variants()["lpips"] == "lpips 0.1, alex"
