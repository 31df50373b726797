"""Pictures of any size: the state lives on a canvas that the prior can take."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from operators import Compose, Crop
from pag_inverse.priors import Prior
from pag_inverse.problem import InverseProblem


@dataclass(frozen=True)
class Canvas:
    """A problem on the canvas of a prior: the picture, and a margin around it that meets no measurement.

    `crop` is None where the prior can take the picture as it is; then the problem is the given one.
    """

    problem: InverseProblem
    crop: Crop | None

    @classmethod
    def of(cls, problem: InverseProblem, prior: Prior) -> Canvas:
        """The canvas for the pictures of a problem; ValueError where the prior cannot take them on any."""
        operator = problem.operator
        shape = prior.canvas_shape(operator.in_shape)
        if shape == tuple(operator.in_shape):
            return cls(problem, None)
        crop = Crop(shape, (operator.in_shape[1], operator.in_shape[2]))
        seen = Compose(operator, crop, project=operator.gluing)
        return cls(InverseProblem(problem.y, seen, problem.noise), crop)

    def picture(self, x: Tensor) -> Tensor:
        """The pictures (B, 3, H, W) of images x on the canvas."""
        return x if self.crop is None else self.crop.forward(x)
