"""Records what each pass of a guidance predicts, while a chain runs, without a further pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pag_inverse.data.images import Picture, to_uint8
from pag_inverse.guidance.guidance import GuidedEps, GuidedModel
from pag_inverse.reports.explanation import COLUMNS, ExplainedStep, Explanation, spread
from pag_inverse.schedule import Schedule
from pag_inverse.settings import check_whole

LARGEST = 256  # pixels of a recorded picture, along both sides
Seen = tuple[Tensor, int, GuidedEps]


class Explainer:
    """Gathers an `Explanation` of each picture that is restored or sampled with it, in their order.

    recorded: how many steps are kept as pictures, spread evenly over the chain; of every step the mean of
    |s (eps - eps_hat)| is kept. of: the images of each batch to explain, by their place; None is all. With
    several samples of a picture each has an explanation. A latent is decoded for the pictures, four times a recorded
    step. The restoration or the sample is the same as without. ValueError: `recorded` is below 1.

    >>> import numpy as np
    >>> from pag_inverse import Explainer, restore
    >>> explainer = Explainer(recorded=2)
    >>> picture = np.full((64, 64, 3), 128, dtype=np.uint8)
    >>> output = restore(picture, task="gaussian_deblur", steps=3, explain=explainer)
    >>> [step.step for step in explainer.explanations[0].shown]
    [1, 3]
    """

    def __init__(self, recorded: int = COLUMNS, of: Sequence[int] | None = None) -> None:
        check_whole("recorded", recorded, 1)
        self.recorded, self.of = recorded, of
        self.explanations: list[Explanation] = []

    def start(self, model: GuidedModel, count: int, steps: int, crop: Callable[[Tensor], Tensor]) -> Recording:
        """The recording of a chain of `steps` steps over `count` images, which adds their explanations.

        `crop` takes the pictures out of the images (B, 3, H, W) of a canvas.
        """
        images = list(range(count)) if self.of is None else list(self.of)
        recording = Recording(model, images, [i + 1 for i in spread(steps, self.recorded)], crop)
        self.explanations += recording.explanations
        return recording


class Recording:
    """A chain under way. `model` is the given one, watched."""

    def __init__(
        self, model: GuidedModel, images: list[int], chosen: list[int], crop: Callable[[Tensor], Tensor]
    ) -> None:
        self.model, self.images, self.chosen, self.crop = replace(model, watch=self._see), images, chosen, crop
        self.explanations = [Explanation() for _ in images]
        self._seen: Seen | None = None

    def _see(self, z: Tensor, t: int, eps: GuidedEps) -> None:
        """Keep what a call gives; of several in a step, the first."""
        if self._seen is None:
            self._seen = (z.detach(), t, replace(eps, unguided=eps.unguided.detach()))

    @torch.no_grad()
    def step(self, done: int, schedule: Schedule, i: int) -> None:
        """File what step `done`, of index i in the schedule, predicted; nothing where it did not run the network."""
        if self._seen is None or not self.images:
            return
        (z, t, eps), self._seen = self._seen, None
        strengths = [0.0] * len(z) if eps.signal is None else eps.signal.abs().float().flatten(1).mean(dim=1).tolist()
        for b, found in zip(self.images, self.explanations, strict=True):
            found.timesteps.append(t)
            found.signal.append(strengths[b])
        if done in self.chosen:
            self._show(done, z[self.images], t, _of(eps, self.images), self._abar(schedule, i, t))

    def _abar(self, schedule: Schedule, i: int, t: int) -> float:
        """abar of t; a solver may look at other timesteps than those of its schedule."""
        if t == int(schedule.timesteps[i]):
            return float(schedule.abar[i])
        return float(np.cumprod(1 - np.asarray(self.model.prior.betas, dtype=np.float64))[t])

    def _show(self, done: int, z: Tensor, t: int, eps: GuidedEps, abar: float) -> None:
        """Add the pictures of a step."""
        mixed = {"x0": eps.unguided, "guided": eps.guided, "perturbed": eps.perturbed}
        images = {"state": self.model.decode(z)}
        for name, e in mixed.items():
            if e is not None:
                images[name] = self.model.decode((z - (1 - abar) ** 0.5 * e) / abar**0.5)  # Eq. 4
        shown: dict[str, Any] = {name: self._pictures(image) for name, image in images.items()}
        if eps.signal is not None:
            height, width = images["state"].shape[-2:]
            shown["signal"] = self._maps(eps.signal, (int(height), int(width)))
        for b, found in enumerate(self.explanations):
            found.shown.append(ExplainedStep(done, t, **{name: parts[b] for name, parts in shown.items()}))

    def _pictures(self, images: Tensor) -> list[Picture]:
        finite = torch.nan_to_num(self.crop(images).float()).clamp(-1, 1)
        return [to_uint8(x) for x in _reduced(finite)]

    def _maps(self, signal: Tensor, size: tuple[int, int]) -> list[NDArray[np.float32]]:
        """|signal|, mean over the channels, at the size of the pictures."""
        mean = torch.nan_to_num(signal.abs().float().mean(dim=1, keepdim=True))
        large = torch.nn.functional.interpolate(mean, size).expand(-1, 3, -1, -1)
        return list(_reduced(self.crop(large))[:, 0].cpu().numpy())


def _of(eps: GuidedEps, images: Sequence[int]) -> GuidedEps:
    """Some images of a batch."""
    parts = ((field.name, getattr(eps, field.name)) for field in fields(eps))
    found: dict[str, Any] = {name: None if part is None else part[images] for name, part in parts}
    return GuidedEps(**found)


def _reduced(images: Tensor) -> Tensor:
    """Images (B, C, H, W) at most LARGEST high and wide; larger ones are averaged."""
    height, width = images.shape[-2:]
    part = LARGEST / max(height, width)
    if part >= 1:
        return images
    size = (max(1, round(height * part)), max(1, round(width * part)))
    return torch.nn.functional.interpolate(images, size, mode="area")
