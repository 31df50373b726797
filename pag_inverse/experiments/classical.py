"""Classical restorations, to hold the priors against: scikit-image's where it has them.

Images are (3, H, W), float32, range [-1, 1]; each function takes one measurement y and its operator (a batch of one).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from operators import Blur, Inpainting, Operator, SuperResolution


def total_variation(operator: Operator, y: Tensor, weight: float, iterations: int = 60) -> Tensor:
    """argmin_x ||A x - y||^2 / 2 + weight TV(x) for a linear operator, y (1, *out_shape) -> (1, *in_shape).

    FISTA (Beck and Teboulle, 2009) whose proximal step is scikit-image's `denoise_tv_chambolle`, colours together;
    weight is on the [-1, 1] range. Entries that were not measured do not count. ValueError: a weight not above 0.
    """
    from skimage.restoration import denoise_tv_chambolle

    if not weight > 0:
        raise ValueError(f"weight is {weight}; it must be above 0")
    seen = operator.observation_mask(y)
    lipschitz = largest_eigenvalue(operator)
    x = previous = operator.enlarge(y * seen)
    momentum = 1.0
    for _ in range(iterations):
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = x + (momentum - 1) / following * (x - previous)
        moved = ahead - operator.adjoint((operator.forward(ahead) - y) * seen) / lipschitz
        array: Any = moved[0].numpy().astype(np.float64)
        # Chambolle's own stopping rule is off: warm starts are not possible, so few iterations must do.
        proximal = denoise_tv_chambolle(array, weight=weight / lipschitz, eps=0.0, max_num_iter=20, channel_axis=0)
        previous, x, momentum = x, torch.from_numpy(proximal[None].astype(np.float32)), following
    return x


def largest_eigenvalue(operator: Operator, iterations: int = 12) -> float:
    """||A||^2 by power iteration, a little enlarged since it comes from below."""
    x = torch.randn((1, *operator.in_shape), generator=torch.Generator().manual_seed(0))
    for _ in range(iterations):
        x = operator.adjoint(operator.forward(x / x.norm()))
    return 1.02 * float(x.norm())


def wiener(operator: Blur, y: Tensor, balance: float) -> Tensor:
    """scikit-image's Wiener-Hunt deconvolution of a blur, balance > 0 (larger is smoother); reflected margins."""
    from skimage.restoration import wiener as deconvolve

    return _by_channel(operator, y, lambda image, psf: deconvolve(image, psf, balance, clip=False))


def richardson_lucy(operator: Blur, y: Tensor, iterations: int) -> Tensor:
    """scikit-image's Richardson-Lucy deconvolution of a blur, on [0, 1]; reflected margins."""
    from skimage.restoration import richardson_lucy as deconvolve

    def on_unit_range(image: Any, psf: Any) -> Any:
        return 2 * deconvolve(np.clip((image + 1) / 2, 1e-3, 1), psf, num_iter=iterations) - 1

    return _by_channel(operator, y, on_unit_range)


def bicubic(operator: SuperResolution, y: Tensor) -> Tensor:
    """y enlarged to the picture's size by bicubic interpolation."""
    return F.interpolate(y, size=operator.in_shape[1:], mode="bicubic", align_corners=False)


def biharmonic(operator: Inpainting, y: Tensor) -> Tensor:
    """scikit-image's biharmonic inpainting of what was not measured; the measured pixels stay as they are."""
    from skimage.restoration import inpaint_biharmonic

    seen = operator.observation_mask(y)[0]
    hole = (seen.amin(dim=0) == 0).numpy()
    filled = inpaint_biharmonic((y[0] * seen).numpy().astype(np.float64), hole, channel_axis=0)
    return torch.from_numpy(filled[None].astype(np.float32))


def _by_channel(operator: Blur, y: Tensor, deconvolve: Any) -> Tensor:
    """Deconvolve each channel, continued by reflection; the operator's kernel is the point spread function."""
    psf = operator.arrays(0)["kernel"]
    rows, columns = (side // 2 for side in psf.shape)
    padded = np.pad(y[0].double().numpy(), ((0, 0), (rows, rows), (columns, columns)), mode="reflect")
    restored = np.stack([deconvolve(channel, psf) for channel in padded])
    height, width = y.shape[-2:]
    return torch.from_numpy(restored[None, :, rows : rows + height, columns : columns + width].astype(np.float32))
