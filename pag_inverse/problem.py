"""The inverse problem y = A(x) + n: a measurement with its operator and its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from operators import Compose, Diagonal, Draw, GaussianNoise, Noise, NoNoise, Operator, make_noise
from pag_inverse.settings import TaskConfig

# Of an entry in `InverseProblem.white`. Counts of black pixels would have sqrt(peak / 2), and steps are as short as the
# largest weight asks for: at peak 800, DAPS ended at 12.4 dB instead of 23.1, RED-diff at a residual of 1.7, not 1.0.
LARGEST_WEIGHT = 4.0


@dataclass(frozen=True)
class InverseProblem:
    """A measurement y (B, *operator.out_shape) of images (B, *operator.in_shape) on the [-1, 1] range.

    `noise` is none where its level is not known. ValueError: y is no floating-point tensor of the operator's shape,
    holds NaN or Inf, lies far outside the range that the operator gives images in [-1, 1], or the operator was built
    for another number of images.

    >>> import torch
    >>> from operators import GaussianBlur, GaussianNoise
    >>> from pag_inverse import InverseProblem
    >>> operator = GaussianBlur((3, 64, 64), 9, 1.5)
    >>> problem = InverseProblem(torch.zeros(2, 3, 64, 64), operator, GaussianNoise(0.05))
    >>> problem.residual(torch.zeros(2, 3, 64, 64)).tolist()
    [0.0, 0.0]
    >>> round(float(problem.noise_level()[0]), 3)  # sigma sqrt(m)
    5.543
    """

    y: Tensor
    operator: Operator
    noise: Noise = field(default_factory=NoNoise)

    def __post_init__(self) -> None:
        if not isinstance(self.operator, Operator):
            raise ValueError(f"operator is a {type(self.operator).__name__}; it must be an operators.Operator")
        if not isinstance(self.noise, Noise):
            raise ValueError(f"noise is a {type(self.noise).__name__}; it must be an operators.Noise")
        if not isinstance(self.y, Tensor):
            raise ValueError(f"y is a {type(self.y).__name__}; it must be a tensor (B, *{self.operator.out_shape})")
        self.operator.observation_mask(self.y)  # raises where shape, dtype or count do not fit
        if len(self.y) == 0:
            raise ValueError("y holds no image; it must hold at least one")
        if not bool(torch.isfinite(self.y).all()):
            raise ValueError("y holds NaN or infinite entries; every entry must be finite")
        self._check_range()

    def _check_range(self) -> None:
        """Values of 0 to 255 under an operator of images in [-1, 1] are a mistake, and so is anything larger."""
        if not self.operator.linear:
            return
        with torch.no_grad():
            ones = self.operator.select([0]).forward(self.y.new_ones((1, *self.operator.in_shape)))
        largest, limit = float(self.y.abs().max()), 16 * (1 + float(ones.abs().max())) + 10 * self.noise.sigma
        if largest > limit:
            raise ValueError(
                f"y has values up to {largest:g}; a measurement of images in [-1, 1] by this operator lies within "
                f"{limit:.3g}: bring 0 to 255 to [-1, 1] first"
            )

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def mask(self) -> Tensor:
        """1 where an entry of y was measured, 0 elsewhere: a tensor like y."""
        return self.operator.observation_mask(self.y)

    def residual(self, x: Tensor) -> Tensor:
        """||y - A x|| of each image over what was measured, (B,), for images x (B, *in_shape); see `white`."""
        white = self.white
        return norms((white.y - white.operator.forward(x)) * white.mask)

    @property
    def white(self) -> InverseProblem:
        """The problem with noise of one sigma in every entry: this one, unless its noise depends on the image.

        Then it is w y' = w A(x) + n with n ~ N(0, sigma^2) and w = sigma / s, at most `LARGEST_WEIGHT`. N(y', s^2) is
        the normal that is nearest to the noise (`Noise.normal`): DPS's weighted norm for counts. Solvers get it.
        """
        return self._white or self

    @cached_property
    def _white(self) -> InverseProblem | None:
        found = self.noise.normal(self.y)
        if found is None:
            return None
        mean, std = found
        factors = (self.noise.sigma / std).clamp(max=LARGEST_WEIGHT)
        weights = Diagonal(factors.cpu(), self.operator.out_shape).to(self.y.device, self.y.dtype)
        y = weights.forward(mean)
        return InverseProblem(y, Compose(weights, self.operator), GaussianNoise(self.noise.sigma))

    def noise_level(self) -> Tensor:
        """sigma sqrt(m), (B,), m entries measured: what the residual of the truth is expected to be."""
        return self.noise.sigma * self.root_count()

    def root_count(self) -> Tensor:
        """sqrt(m), (B,), of m entries measured."""
        return self.mask.flatten(1).sum(dim=1).sqrt()

    def residual_unit(self) -> Tensor:
        """What residuals are divided by for display, (B,): the noise level, or sqrt(m) where sigma is 0 or unknown."""
        return self.noise_level() if self.noise.sigma > 0 else self.root_count()

    @torch.no_grad()
    def relative_residual(self, x: Tensor) -> Tensor:
        """The residual of x in `residual_unit`, (B,): about 1 is right."""
        return self.residual(x) / self.residual_unit()

    def select(self, indices: Sequence[int]) -> InverseProblem:
        """The problem of some images of the batch, in the order of `indices`; they may repeat."""
        return InverseProblem(self.y[list(indices)], self.operator.select(indices), self.noise)

    def to(self, device: torch.device | str) -> InverseProblem:
        """The problem on another device."""
        return InverseProblem(self.y.to(device), self.operator.to(device), self.noise)


def simulate(
    x: Tensor, operator: Operator, noise: Noise | None = None, *, draw: Draw = torch.randn, noise_in_hole: bool = True
) -> InverseProblem:
    """Degrade images x (B, *operator.in_shape) in [-1, 1]: y = A(x) + n.

    `draw(shape)` gives the samples of N(0, 1). `noise_in_hole`: noise also where nothing was measured, as the
    published programs have it. ValueError: x does not fit the operator.

    >>> import torch
    >>> from operators import GaussianBlur, GaussianNoise
    >>> from pag_inverse import simulate
    >>> x = torch.zeros(1, 3, 64, 64)
    >>> problem = simulate(x, GaussianBlur((3, 64, 64), 9, 1.5), GaussianNoise(0.05))
    >>> problem.y.shape
    torch.Size([1, 3, 64, 64])
    """
    noise = noise or NoNoise()
    y = noise(operator.forward(x), draw)
    return InverseProblem(y if noise_in_hole else y * operator.observation_mask(y), operator, noise)


def task_noise(task: TaskConfig, sigma: float | None = None, peak: float | None = None) -> Noise:
    """A task's noise, or the same with another sigma or peak; none where sigma is 0. ValueError as in `make_noise`."""
    if peak is not None or (task.peak is not None and sigma is None):
        return make_noise(task.noise, peak=task.peak if peak is None else peak)
    level = task.sigma if sigma is None else sigma
    return make_noise(task.noise, level) if level else make_noise("none")


def norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each image of a batch, (B,); its gradient at 0 is 0."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)
