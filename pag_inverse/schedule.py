"""Noise schedules: which timesteps are visited, and one reverse step of DDPM and DDIM.

Symbols: `abar` is the cumulative product of 1 - beta, `x_t = sqrt(abar) x0 + sqrt(1 - abar) eps`.
A `Schedule` is ascending: index 0 is the last step executed, index `len - 1` the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.floating[Any]]
T = 1000


def linear_betas(start: float = 1e-4, end: float = 0.02) -> Floats:
    """The 1000 linear betas of ADM's checkpoints."""
    return np.linspace(start, end, T, dtype=np.float64)


def scaled_linear_betas(start: float = 0.00085, end: float = 0.012) -> Floats:
    """The 1000 betas of Stable Diffusion: linear in sqrt(beta)."""
    return np.linspace(start**0.5, end**0.5, T, dtype=np.float64) ** 2


BETAS = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}


def check_steps(steps: int) -> None:
    """Raise ValueError unless 1 <= steps <= 1000."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= T:
        raise ValueError(f"steps is {steps!r}; it must be a whole number from 1 to {T}")


def respaced_timesteps(steps: int) -> list[int]:
    """ADM's respacing: accumulated float strides, rounded half to even (20 steps: 0, 53, 105, 158, ..., 999)."""
    check_steps(steps)
    stride = (T - 1) / (steps - 1) if steps > 1 else 1.0
    position, timesteps = 0.0, []
    for _ in range(steps):
        timesteps.append(round(position))
        position += stride
    return timesteps


def strided_timesteps(steps: int) -> list[int]:
    """ADM's respacing `ddimN`: 0, k, 2 k, ..., with the least whole stride k that gives `steps` of them below 1000.

    Where no stride does, they are spread evenly from 0 to 999.
    """
    check_steps(steps)
    strides = (list(range(0, T, k)) for k in range(1, T + 1))
    return next((found for found in strides if len(found) == steps), respaced_timesteps(steps))


POWERS = {"quadratic": 2, "quartic": 4}


def spread_timesteps(steps: int, spacing: str, first: int = 0) -> list[int]:
    """`steps` timesteps from `first` to 999, close together where little noise is left (Song et al., DDIM, D.3).

    first + (999 - first) (i / (steps - 1))^p, p of `POWERS`, rounded, and moved apart where two would fall together.
    """
    check_steps(steps)
    even = np.arange(steps)
    spread = np.rint(first + (T - 1 - first) * (even / max(1, steps - 1)) ** POWERS[spacing]).astype(np.int64)
    timesteps = np.maximum.accumulate(spread - even) + even
    return [int(t) for t in np.minimum(timesteps, T - steps + even)]


@dataclass(frozen=True)
class Schedule:
    """The visited chain: `timesteps` given to the network, `abar` and `abar_prev`, each (N,), ascending."""

    timesteps: npt.NDArray[np.int64]
    abar: Floats
    abar_prev: Floats

    @classmethod
    def ddpm(cls, betas: Floats, steps: int, spacing: str = "even") -> Schedule:
        """The respaced DDPM chain of ADM and DPS; the state after the last step is the image itself (abar_prev = 1).

        `spacing`: `even`, as published, or one of `POWERS`.
        """
        timesteps = np.array(spread_timesteps(steps, spacing) if spacing in POWERS else respaced_timesteps(steps))
        abar = np.cumprod(1.0 - betas)[timesteps]
        return cls(timesteps, abar, np.append(1.0, abar[:-1]))

    @classmethod
    def ddim(cls, betas: Floats, steps: int, spacing: str = "even") -> Schedule:
        """The DDIM chain of the published PSLD program.

        Where `steps` divides 1000 the network sees t = 1, 1 + 1000/steps, ..., with abar of the same t (1000 steps:
        t = 1 ... 1000 with abar of t - 1); otherwise `steps` timesteps spread evenly over 1 ... 999, or with `spacing`
        quadratic or quartic over 1 ... 999. The last step ends at abar of t = 0, never at 1.
        """
        check_steps(steps)
        abar: Floats = np.cumprod(1.0 - betas)
        if spacing in POWERS and steps < T:
            timesteps = np.array(spread_timesteps(steps, spacing, first=1))
        elif T % steps:
            timesteps = np.rint(np.linspace(1, T - 1, steps)).astype(np.int64)
        else:
            timesteps = np.arange(0, T, T // steps) + 1
        visited = abar[timesteps - (1 if steps == T else 0)]
        return cls(timesteps, visited, np.append(abar[0], visited[:-1]))

    @classmethod
    def ddim_pixels(cls, betas: Floats, steps: int) -> Schedule:
        """The DDIM chain of ADM (`strided_timesteps`); the last step ends at the image itself (abar_prev = 1)."""
        timesteps = np.array(strided_timesteps(steps))
        abar = np.cumprod(1.0 - betas)[timesteps]
        return cls(timesteps, abar, np.append(1.0, abar[:-1]))

    @classmethod
    def edm(cls, betas: Floats, steps: int, sigma_max: float, sigma_min: float) -> Schedule:
        """Noise levels sigma from `sigma_max` to `sigma_min`, even in sigma^(1/7) (Karras et al., 2022, Eq. 5).

        sigma is the noise of x_t / sqrt(abar), sqrt((1 - abar) / abar); each level is the nearest of the 1000
        timesteps', so that neighbours may be equal. The last step ends at the image (abar_prev = 1).
        """
        check_steps(steps)
        abar: Floats = np.cumprod(1.0 - betas)
        known = np.sqrt((1 - abar) / abar)
        levels = np.linspace(sigma_max ** (1 / 7), sigma_min ** (1 / 7), steps)[::-1] ** 7
        timesteps = np.abs(known[None] - levels[:, None]).argmin(axis=1)
        return cls(timesteps, abar[timesteps], np.append(1.0, abar[timesteps][:-1]))

    def sigma(self, i: int) -> float:
        """The noise of x_t / sqrt(abar), sqrt((1 - abar) / abar)."""
        abar = float(self.abar[i])
        return float(((1 - abar) / abar) ** 0.5)

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def betas(self) -> Floats:
        """beta of the visited chain, 1 - abar / abar_prev."""
        return 1.0 - self.abar / self.abar_prev

    @property
    def posterior_variance(self) -> Floats:
        """beta-tilde, the variance of q(x_{t-1} | x_t, x0); the last step's zero is replaced by its neighbour's."""
        variance = self.betas * (1.0 - self.abar_prev) / (1.0 - self.abar)
        return np.append(variance[min(1, len(self) - 1)], variance[1:])

    def predict_x0(self, x_t: Tensor, eps: Tensor, i: int) -> Tensor:
        """x0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar), Eq. 4."""
        abar = float(self.abar[i])
        return (x_t - (1 - abar) ** 0.5 * eps) / abar**0.5

    def ddpm_step(self, x_t: Tensor, x0: Tensor, i: int, f: Tensor | float, noise: Tensor | None) -> Tensor:
        """x_{t-1} ~ N(mean(x0, x_t), exp(f log beta + (1 - f) log beta-tilde)); without `noise`, its mean.

        `f` is the interpolation of a learned variance (a tensor like `x_t`), 0 for beta-tilde or 1 for beta.
        """
        beta, abar, prev = float(self.betas[i]), float(self.abar[i]), float(self.abar_prev[i])
        mean = beta * prev**0.5 / (1 - abar) * x0 + (1 - prev) * (1 - beta) ** 0.5 / (1 - abar) * x_t
        if noise is None:
            return mean
        log_beta, log_tilde = np.log(beta), np.log(self.posterior_variance[i])
        log_variance = torch.as_tensor(f * log_beta + (1 - f) * log_tilde)
        return mean + torch.exp(0.5 * log_variance).to(mean) * noise

    def ddim_sigma(self, i: int, ddim_eta: float) -> float:
        """The noise level of a DDIM step; 0 for ddim_eta = 0."""
        abar, prev = float(self.abar[i]), float(self.abar_prev[i])
        return float(ddim_eta * ((1 - prev) / (1 - abar) * (1 - abar / prev)) ** 0.5)

    def ddim_step(self, z0: Tensor, eps: Tensor, i: int, ddim_eta: float, noise: Tensor | None) -> Tensor:
        """z_{t-1} = sqrt(abar_prev) z0 + sqrt(1 - abar_prev - sigma^2) eps + sigma noise."""
        prev, sigma = float(self.abar_prev[i]), self.ddim_sigma(i, ddim_eta)
        mean = prev**0.5 * z0 + (1 - prev - sigma**2) ** 0.5 * eps
        return mean if noise is None or sigma == 0 else mean + sigma * noise
