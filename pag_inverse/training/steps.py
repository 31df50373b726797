"""What a step of training needs beside gradients: the rate, the averaged weights, and a watch over the loss."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import torch
from torch import nn

from pag_inverse.training.settings import TrainSettings


class Diverged(ValueError):
    """The loss has risen and stays high; the last state saved is from before, or from just then."""


class Watch:
    """Told every loss; raises Diverged where the mean of the last 200 is 1.6 times the lowest such mean so far.

    A network can lose half of what it has learned within twenty steps: the loss doubles then, and no more.
    """

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=200)
        self.lowest = math.inf

    def __call__(self, loss: float, step: int) -> None:
        self.recent.append(loss)
        if len(self.recent) < 200:
            return
        mean = float(np.mean(self.recent))
        if not mean <= 1.6 * self.lowest:
            raise Diverged(f"training has diverged at step {step}: the loss was {self.lowest:.3g} and is {mean:.3g}")
        self.lowest = min(self.lowest, mean)


class Ema:
    """An exponential moving average of a model's parameters, shorter at the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            self.shadow[key].lerp_(value, 1 - decay)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Linear warm-up, then constant, then a linear decay to zero over the last quarter."""
    tail = max(1, settings.steps // 4)
    factor = min(1.0, (step + 1) / max(1, settings.warmup), (settings.steps - step) / tail)
    return settings.learning_rate * factor
