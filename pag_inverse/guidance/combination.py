"""How a difference of two predictions becomes guidance: as it is (Eq. 10), or by adaptive projection (APG)."""

from __future__ import annotations

import abc
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from pag_inverse.settings import Positive, Unit, settings

REFERENCE_ENTRIES = 64 * 64 * 4  # of the latents that a published radius holds for


class Combination(abc.ABC):
    """A rule d -> d' for the difference d of eps and a worse prediction. A frozen dataclass of its options."""

    @abc.abstractmethod
    def __call__(self, d: Tensor, eps: Tensor) -> Tensor:
        """The difference that is added, s times, to eps; each (B, *state)."""

    def options(self) -> dict[str, Any]:
        """The options by name."""
        return asdict(self) if is_dataclass(self) else {}


@settings
class Plain(Combination):
    """d' = d (Ahn et al., 2024, Eq. 10)."""

    def __call__(self, d: Tensor, eps: Tensor) -> Tensor:
        """d itself."""
        return d


@settings
class APG(Combination):
    """d' = d_o + eta d_p: d with its norm at most r, split along and across eps (Sadat et al., 2024, without momentum).

    d <- d min(1, r / ||d||); d_p = <d, e> e with e = eps / ||eps||; d_o = d - d_p. Norms and products are of each
    image. radius: r for a state of 64 x 64 x 4 entries, above 0; a state of n entries has r sqrt(n / 16384), null is no
    bound. eta: the share of the part along eps that stays, 0 to 1.
    """

    radius: Annotated[Positive | None, Field(description="largest norm of d at 64 x 64 x 4 entries; null: none")] = 15.0
    eta: Annotated[Unit, Field(description="share of the part along eps that stays")] = 0.0

    def __call__(self, d: Tensor, eps: Tensor) -> Tensor:
        """The projected difference."""
        d, e = d.flatten(1), torch.nn.functional.normalize(eps.flatten(1), dim=1)  # (B, n)
        if self.radius is not None:
            r = self.radius * (d.shape[1] / REFERENCE_ENTRIES) ** 0.5
            norm = torch.linalg.vector_norm(d, dim=1, keepdim=True)
            d = d * (r / norm.clamp(min=1e-30)).clamp(max=1.0)
        along = (d * e).sum(dim=1, keepdim=True) * e
        return (d - (1 - self.eta) * along).reshape(eps.shape)
