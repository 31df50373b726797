"""The solvers as deepinv's users call one: `model(y, physics)`."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base import Shape
from pag_inverse.adapters.problem import first_tensor, image_shape, problems
from pag_inverse.guidance import Guidance
from pag_inverse.priors import load_prior
from pag_inverse.problem import InverseProblem
from pag_inverse.restoration import restore
from pag_inverse.settings import check_whole
from pag_inverse.solvers import Solver, solver_class


class Reconstructor(torch.nn.Module):
    """A solver as deepinv's users call one: u = model(y, physics), images (B, C, H, W) in [0, 1].

    prior, solver, guidance, steps, seed, tile and overlap are those of `restore`. Of several samples, `forward` gives
    the mean. `img_size` and `sigma`: see `physics_problem`. The random stream of a picture is keyed by the seed and
    by what was measured of it, not by its place in a batch. A picture that left the finite numbers is NaN.
    The prior runs where y is. There is nothing to train.

    >>> import torch
    >>> from deepinv.physics import Denoising, GaussianNoise
    >>> from pag_inverse.adapters import Reconstructor
    >>> physics = Denoising(GaussianNoise(0.1))
    >>> Reconstructor(steps=2)(physics(torch.rand(1, 3, 64, 64)), physics).shape
    torch.Size([1, 3, 64, 64])
    """

    def __init__(
        self,
        prior: Any = None,
        *,
        solver: str | Solver | None = None,
        guidance: Guidance | None = None,
        steps: int | None = None,
        num_samples: int = 1,
        seed: int = 0,
        img_size: Shape | None = None,
        sigma: float | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> None:
        super().__init__()
        check_whole("num_samples", num_samples, minimum=1)
        check_whole("seed", seed)
        if prior is None and solver is not None and solver != "auto":
            kind = solver_class(solver) if isinstance(solver, str) else type(solver)
            prior = kind.default_prior
        self.prior = load_prior("pixel" if prior is None else prior)
        self.solver, self.guidance, self.steps = solver, guidance, steps
        self.num_samples, self.seed, self.img_size, self.sigma = num_samples, seed, img_size, sigma
        self.tile, self.overlap = tile, overlap

    def forward(self, y: Any, physics: Any) -> Tensor:
        """The mean of the samples, (B, C, H, W) in [0, 1]. ValueError as in `physics_problem` and `restore`."""
        return self.samples(y, physics).mean(dim=1)

    @torch.no_grad()
    def samples(self, y: Any, physics: Any) -> Tensor:
        """Posterior samples (B, num_samples, C, H, W) in [0, 1]."""
        parts = problems(y, physics, self.img_size, self.sigma)
        order = [b for indices, _ in parts for b in indices]
        found = torch.cat([self._restored(problem) for _, problem in parts])
        channels = image_shape(y, physics, self.img_size)[0]
        u = (found[np.argsort(order)] + 1) / 2
        if channels != 3:  # a complex image has a real part and none that is imaginary
            grey = u.mean(dim=2, keepdim=True)
            u = torch.cat([grey, *[torch.zeros_like(grey)] * (channels - 1)], dim=2)
        return u.to(first_tensor(y).device)

    def _restored(self, problem: InverseProblem) -> Tensor:
        self.prior = self.prior.to(problem.y.device)
        output = restore(
            problem,
            prior=self.prior,
            solver=self.solver,
            guidance=self.guidance,
            steps=self.steps,
            num_samples=self.num_samples,
            seed=self.seed,
            names=names_of(problem.y),
            tile=self.tile,
            overlap=self.overlap,
        )
        for b, s in output.failed:
            output.x[b, s] = torch.nan
        return output.x


def names_of(y: Tensor) -> list[str]:
    """A name for each measurement by its values; equal ones are numbered."""
    hashes = [hashlib.sha256(one.cpu().contiguous().numpy().tobytes()).hexdigest() for one in y]
    return [f"{name}-{hashes[:b].count(name)}" for b, name in enumerate(hashes)]
