"""Small reports of synthetic results, with the files that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pag_inverse.data.images import bundled_photograph, from_uint8, prepare, read_picture, write_png
from pag_inverse.metrics.paired import psnr, sharpness, ssim
from pag_inverse.metrics.summary import Metric, summarise
from pag_inverse.reports.contents import ComparisonReport, EvaluationReport, ImageResult, Restoration, RunReport

SIDE, IMAGES = 48, 5
SETTINGS = {"task": "gaussian_deblur", "solver": "dps", "images": "folder", "dataset": "natural", "sigma": 0.05}
VARIANTS = {
    "psnr": "8-bit RGB",
    "ssim": "scikit-image",
    "lpips": "lpips 0.1, vgg",
    "fid": "Inception",
    "kid": "Inception",
}


def write_image(path: Path, noise: float, seed: int) -> Path:
    image = prepare(bundled_photograph("chelsea"), SIDE)
    noisy = image + noise * np.random.default_rng(seed).standard_normal(image.shape).astype(np.float32)
    write_png(path, noisy)
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunReport]:
    """A run of five images, the first the best; `noise` is how far its restorations are off."""

    def make(name: str, noise: float, failures: Sequence[str] = (), **settings: Any) -> RunReport:
        truth = write_image(tmp_path / "truth.png", 0, 0)
        images = {}
        for i in (str(i) for i in range(IMAGES)):
            file = write_image(tmp_path / f"{name}_{i}.png", noise * (1 + 0.2 * int(i)), int(i))
            np.save(tmp_path / "y.npy", from_uint8(read_picture(file))[:, ::4, ::4])
            value = psnr(read_picture(file), read_picture(truth))
            curve = np.geomspace(30, 1 + noise, 20)
            images[i] = ImageResult(value, 0.5, 2, 900.4, list(curve), truth, tmp_path / "y.npy", file)
        scores = {i: [{"psnr": image.psnr}, {"psnr": image.psnr - 0.5}] for i, image in images.items()}
        metrics = [summarise("psnr", scores), Metric("lpips", reason="no vgg16 weights"), Metric("fid", 5, 21.5)]
        kept = {i: image for i, image in images.items() if i not in failures}
        given = {**SETTINGS, "s": 1.0 if name.endswith("_pag") else 0.0, **settings}
        return RunReport(name, given, metrics, kept, {i: "left the finite numbers at step 3" for i in failures})

    return make


@pytest.fixture
def evaluation(make_run: Callable[..., RunReport]) -> EvaluationReport:
    runs = [make_run("gaussian_deblur_dps", 0.2), make_run("gaussian_deblur_dps_pag", 0.1, seed=0)]
    return EvaluationReport(runs, VARIANTS)


@pytest.fixture
def comparison(tmp_path: Path) -> ComparisonReport:
    """Two pictures; three samples with PAG, one of everything else."""
    noise = {"measurement": 0.4, "total_variation": 0.2, "dps": 0.15, "dps_pag": 0.1}
    truths = {name: write_image(tmp_path / f"{name}.png", 0.0, 0) for name in ("astronaut", "coffee")}
    found = []
    for p, (picture, truth) in enumerate(truths.items()):
        for method, level in noise.items():
            for sample in range(3 if method == "dps_pag" else 1):
                file = write_image(tmp_path / f"{picture}_{method}_{sample}.png", level, 10 * p + sample)
                x, t = read_picture(file), read_picture(truth)
                scores = {"psnr": psnr(x, t), "ssim": ssim(x, t), "sharpness": sharpness(x, t), "residual": 1.0}
                passes = {"forward": 20, "backward": 10} if method.startswith("dps") else {}
                costs = {"seconds": 2.0, "cpu_seconds": 3.0} if method.startswith("dps") else {}
                found.append(Restoration(method, picture, sample, scores, file, passes, costs))
    tuned = {"box_inpainting.total_variation": 0.05}
    return ComparisonReport(SIDE, 0, truths, {"box_inpainting": found}, tuned, "LPIPS was not measured: no weights.")
