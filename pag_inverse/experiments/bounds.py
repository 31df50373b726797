"""What bounds a restoration whatever the solver: one step of a prior as a denoiser, and an autoencoder's round trip."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pag_inverse.priors import Prior
from pag_inverse.runtime.streams import batch_draw, stream_seed
from pag_inverse.schedule import Schedule, T

# Of total variation, in parts of sigma; the best for photographs lies inside for each sigma of `--sigmas`.
ORACLE_WEIGHTS = tuple(float(w) for w in np.geomspace(0.15, 2.0, 12))


def sigma_text(sigma: float) -> str:
    """A sigma in as few digits as tell it from every other."""
    return repr(float(sigma)).removesuffix(".0")


def noisy(truth: Tensor, sigma: float, seed: int, name: str) -> Tensor:
    """truth (1, 3, H, W) + sigma n, the same for a seed, a picture's name and a sigma."""
    draw = batch_draw([stream_seed(seed, f"{name}, sigma {sigma_text(sigma)}", "measurement")], truth.device)
    return truth + sigma * draw(tuple(truth.shape))


@torch.no_grad()
def one_step(prior: Prior, noisy: Tensor, sigma: float) -> Tensor:
    """The prior's x0 of truth + sigma n, (1, 3, H, W), as the state of the timestep whose noise is nearest."""
    schedule = Schedule.ddpm(prior.betas, T)
    level = np.sqrt((1 - schedule.abar) / schedule.abar)
    i = int(np.abs(np.log(level / sigma)).argmin())
    z = noisy * float(schedule.abar[i]) ** 0.5
    return schedule.predict_x0(z, prior.predict(z, int(schedule.timesteps[i])).eps, i).clamp(-1, 1)


def oracle_total_variation(noisy: Tensor, truth: Tensor, sigma: float) -> Tensor:
    """scikit-image's total-variation denoising with the weight that is best for this very picture."""
    from skimage.restoration import denoise_tv_chambolle

    image: Any = noisy[0].cpu().numpy().astype(np.float64)
    tried = (
        torch.from_numpy(denoise_tv_chambolle(image, weight=w * sigma, channel_axis=0)).float() for w in ORACLE_WEIGHTS
    )
    best = min((x.clamp(-1, 1) for x in tried), key=lambda x: float((x - truth[0].cpu()).square().mean()))
    return best[None].to(truth)


@torch.no_grad()
def round_trip(prior: Any, truth: Tensor) -> Tensor:
    """D(E(x)) of a latent prior, (1, 3, H, W): PSLD's samples are such pictures."""
    decoded: Tensor = prior.decode(prior.encode(truth))
    return decoded.clamp(-1, 1)
