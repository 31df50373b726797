"""What training minimises, and what held-out pictures are asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pag_inverse.schedule import T
from pag_inverse.training.crops import validation_crops

Objective = Callable[[Any, Tensor, torch.Generator], Tensor]
Encode = Callable[[Tensor, torch.Generator], Tensor]  # images (B, 3, H, W) to scaled latents
Validate = Callable[[Any], dict[str, float]]
VALIDATION_TIMESTEPS = (20, 100, 250, 500, 750, 950)


def eps_objective(abar: Tensor, encode: Encode | None = None, sigma_limit: float = 4.0) -> Objective:
    """E w(t) ||eps - eps_theta(sqrt(abar) x0 + sqrt(1 - abar) eps, t)||^2; on latents with `encode`.

    t = 1000 u^1.5 for u uniform: more of the small t, which decide how sharp restorations are.
    w = min(sigma, sigma_limit) for sigma^2 = (1 - abar) / abar: on photographs the error of eps falls as 1 / sigma, so
    every level up to the limit weighs alike.
    """
    weights = ((1 - abar) / abar).sqrt().clamp(max=sigma_limit)

    def loss(model: Any, x: Tensor, generator: torch.Generator) -> Tensor:
        z = x if encode is None else encode(x, generator)
        t = (T * torch.rand(len(z), generator=generator) ** 1.5).long().to(z.device)
        return (weights.to(z)[t] * eps_error(model, z, t, abar, generator)).mean()

    return loss


def eps_error(model: Any, z: Tensor, t: Tensor, abar: Tensor, generator: torch.Generator) -> Tensor:
    """The mean squared error of the predicted noise of each image, (B,), for states z and timesteps t (B,)."""
    eps = torch.randn(z.shape, generator=generator).to(z)
    a = abar.to(z)[t].reshape(-1, 1, 1, 1)
    prediction = model(a.sqrt() * z + (1 - a).sqrt() * eps, t).sample
    return (prediction.float() - eps).square().mean(dim=(1, 2, 3))


def autoencoder_objective(kl_weight: float) -> Objective:
    """E |x - D(E(x))| + kl_weight KL(posterior || N(0, I)), both as means over their elements."""

    def loss(model: Any, x: Tensor, generator: torch.Generator) -> Tensor:
        posterior = model.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(x)
        reconstruction = model.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).float().mean()
        return (reconstruction.float() - x).abs().mean() + kl_weight * kl

    return loss


def validate_eps(files: list[Path], side: int, abar: Tensor, encode: Encode | None, device: torch.device) -> Validate:
    """A function of a model: its squared error on held-out crops for each noise level, the noise always the same."""
    x = validation_crops(files, side).to(device)

    def validate(model: Any) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        z = x if encode is None else encode(x, generator)
        levels = [(t, torch.full((len(z),), t, device=device)) for t in VALIDATION_TIMESTEPS]
        return {f"t{t}": float(eps_error(model, z, ts, abar, generator).mean()) for t, ts in levels}

    return validate


def validate_autoencoder(files: list[Path], side: int, device: torch.device) -> Validate:
    """A function of a model: the PSNR of its round trip, dB, and the latents' deviation, on held-out crops."""
    x = validation_crops(files, side).to(device)

    def validate(model: Any) -> dict[str, float]:
        z = model.encode(x).latent_dist.mean
        mse = (model.decode(z).sample.float().clamp(-1, 1) - x).square().mean(dim=(1, 2, 3))
        return {"psnr": float((10 * torch.log10(4 / mse)).mean()), "latent_std": float(z.float().std())}

    return validate
