"""Posteriors that are known in closed form, and how far the samples of a solver are from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from operators import GaussianBlur, GaussianNoise, Inpainting, Operator, SuperResolution
from pag_inverse.experiments.analytic_priors import GaussianMixture, MixturePrior, independent, smooth, two_modes
from pag_inverse.guidance import GuidedModel, NoGuidance
from pag_inverse.problem import InverseProblem
from pag_inverse.restoration.loop import run_chain
from pag_inverse.schedule import BETAS
from pag_inverse.solvers import Solver

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
PRIORS = ("independent, v = 1", "independent, v = 0.1", "smooth", "two modes")
OPERATORS = ("mask", "blur", "super-resolution")
SIGMAS = (0.05, 0.3)
PASSED = 0.1


@dataclass(frozen=True)
class Case:
    """A measurement y = A x + sigma n of one image of a known prior; A as an operator and as a matrix (m, d)."""

    prior: GaussianMixture
    operator: Operator
    matrix: Tensor
    sigma: float
    y: Tensor

    @cached_property
    def posterior(self) -> GaussianMixture:
        """p(x | y)."""
        return self.prior.posterior(self.matrix, self.y, self.sigma)

    @property
    def variance(self) -> float:
        """The mean variance of an entry within a component of the prior."""
        return float(self.prior.covariances.diagonal(dim1=1, dim2=2).mean())

    @cached_property
    def directions(self) -> tuple[Tensor, Tensor]:
        """An orthonormal basis (d, d), the right singular vectors of A, and which of its directions are measured:
        those with a squared singular value of at least PASSED of the largest."""
        _, values, rows = torch.linalg.svd(self.matrix)
        gains = torch.zeros(SIZE, dtype=torch.float64)
        gains[: len(values)] = values.square()
        return rows.T, gains >= PASSED * gains.max()


@cache
def make_case(prior: str, operator: str, sigma: float) -> Case:
    """The case of names of PRIORS and OPERATORS; the image and the noise are drawn from seed 0."""
    mixture, chosen, generator = make_prior(prior), make_operator(operator), torch.Generator().manual_seed(0)
    matrix = chosen.forward(torch.eye(SIZE, dtype=torch.float64).view(-1, *SHAPE)).flatten(1).T
    noise = torch.randn(len(matrix), generator=generator, dtype=torch.float64)
    return Case(mixture, chosen, matrix, sigma, matrix @ mixture.sample(1, generator)[0] + sigma * noise)


def make_prior(name: str) -> GaussianMixture:
    """A prior of PRIORS, around a gradient from -0.3 to 0.3.

    The two modes differ by a checkerboard in the middle, which no operator shows well, and a little everywhere.
    """
    mean = torch.linspace(-0.3, 0.3, SHAPE[2], dtype=torch.float64).expand(SHAPE).flatten()
    if name == "two modes":
        rows, columns = torch.meshgrid(torch.arange(SHAPE[1]), torch.arange(SHAPE[2]), indexing="ij")
        apart = 0.02 + 0.3 * (-1.0) ** (rows + columns).double() * (1 - middle_missing())
        return two_modes(mean, apart.expand(SHAPE).flatten(), 0.1, 0.3)
    if name == "smooth":
        return smooth(mean, 0.15, SHAPE, 2.0, 0.01)
    return independent(mean, float(name.partition("v = ")[2]))


def make_operator(name: str) -> Operator:
    """An operator of OPERATORS: a quarter is missing, a Gaussian blur of 1 pixel, half the side."""
    if name == "mask":
        return Inpainting(middle_missing(), SHAPE)
    return GaussianBlur(SHAPE, 5, 1.0) if name == "blur" else SuperResolution(SHAPE, 2)


def middle_missing() -> Tensor:
    """A mask (H, W), 0 in its middle, half the sides."""
    mask = torch.ones(SHAPE[1:])
    mask[SHAPE[1] // 4 : -SHAPE[1] // 4, SHAPE[2] // 4 : -SHAPE[2] // 4] = 0
    return mask


def rotation() -> Tensor:
    """A fixed orthogonal matrix (d, d): the decoder of latent solvers."""
    normal = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.linalg.qr(normal)[0]


def draw_samples(solver: Solver, case: Case, count: int, steps: int) -> Tensor:
    """Samples (count, d) of a solver without guidance, with NaN where one left the finite numbers."""
    latent = solver.default_prior == "latent"
    betas = BETAS["scaled_linear" if latent else "linear"]()
    prior = MixturePrior(case.prior, SHAPE, betas, rotation() if latent else None)
    y = case.y.float().view(1, *case.operator.out_shape).expand(count, -1, -1, -1).contiguous()
    problem, generator = InverseProblem(y, case.operator, GaussianNoise(case.sigma)), torch.Generator().manual_seed(2)
    model = GuidedModel(prior, NoGuidance())
    result = run_chain(
        problem, model, solver, steps, range(count), draw=lambda shape: torch.randn(shape, generator=generator)
    )
    return result.x.flatten(1).double()


@dataclass(frozen=True)
class Figures:
    """How the samples of a solver differ from the posterior; all but `failed` are None where one has failed.

    bias: ||sample mean - mean|| over the root of the trace of the posterior's covariance, what the finite number of
    samples adds taken away; bias_error: how much larger it is where its square is larger by a standard error;
    bias_share: over the norm of the mean. ratio: the rms deviation of the samples over the posterior's; measured and
    unmeasured: in the directions that the operator passes, and in the others. weight and exact_weight: of the first
    mode, None for a single mode. failed: the share of samples that left the finite numbers.
    """

    bias: float | None = None
    bias_error: float | None = None
    bias_share: float | None = None
    ratio: float | None = None
    measured: float | None = None
    unmeasured: float | None = None
    weight: float | None = None
    exact_weight: float | None = None
    failed: float = 0.0


def figures(samples: Tensor, case: Case) -> Figures:
    """The figures of samples (B, d) of a case."""
    finite = torch.isfinite(samples).all(dim=1)
    if not bool(finite.all()):
        return Figures(failed=float((~finite).double().mean()))
    posterior, count = case.posterior, len(samples)
    trace = float(posterior.covariance.trace())
    covariance, apart = samples.T.cov(), samples.mean(dim=0) - posterior.mean
    total = float(covariance.trace())
    square = max(0.0, float(apart @ apart) - total / count)  # ||apart||^2 without what the noise of the mean adds
    of_square = max(0.0, float(covariance.square().sum()) - total**2 / count)  # the trace of the squared covariance
    along = max(0.0, float(apart @ covariance @ apart) - of_square / count)
    error = math.sqrt(2 * of_square / count**2 + 4 * along / count)  # of the square
    bias = math.sqrt(square)
    basis, decided = case.directions
    found, exact = ((basis.T @ c @ basis).diagonal() for c in (covariance, posterior.covariance))
    measured, unmeasured = (float((found[part].sum() / exact[part].sum()).sqrt()) for part in (decided, ~decided))
    weight, exact_weight = mode_weights(samples, posterior)
    return Figures(
        bias=bias / trace**0.5,
        bias_error=(math.sqrt(square + error) - bias) / trace**0.5,
        bias_share=bias / float(posterior.mean.norm()),
        ratio=math.sqrt(total / trace),
        measured=measured,
        unmeasured=unmeasured,
        weight=weight,
        exact_weight=exact_weight,
    )


def mode_weights(samples: Tensor, posterior: GaussianMixture) -> tuple[float | None, float | None]:
    """The share of samples that are nearest to the first mode, and its weight."""
    if len(posterior.weights) == 1:
        return None, None
    nearest = torch.cdist(samples, posterior.means).argmin(dim=1)
    return float((nearest == 0).double().mean()), float(posterior.weights[0])
