"""The training loop, which resumes exactly.

Everything random in step k is a function of (seed, k) alone. A run that was stopped and goes on from its last state
takes the same path as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from operators.validation import field_names
from pag_inverse.training.crops import Crops
from pag_inverse.training.objectives import Objective, Validate
from pag_inverse.training.settings import TrainSettings

Preview = Callable[[Any, int], dict[str, float]]


class Diverged(ValueError):
    """The loss has risen and stays high; the last state saved is from before, or from just then."""


DROPPED_OF, DROPPED_LIMIT = 100, 20  # steps whose gradients are not finite, of so many


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


class Trainer:
    """One training run in a folder: `state.pt` (resumes exactly), `log.jsonl`, and at the end the averaged weights."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        data: Crops,
        settings: TrainSettings,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.model, self.objective, self.data, self.settings = model.to(device), objective, data, settings
        self.folder, self.device, self.step = folder, device, 0
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.norm: float | None = None  # of the gradient, a running mean
        self.dropped: deque[bool] = deque(maxlen=DROPPED_OF)  # whether a step's gradient was not finite
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
        self.ema = Ema(model, settings.ema)

    def run(
        self,
        save_every: float,
        validate_every: int,
        validate: Validate,
        preview_every: int = 0,
        preview: Preview | None = None,
    ) -> None:
        """Train to `settings.steps`, saving every `save_every` seconds; prints and logs the loss. Diverged: `Watch`.

        `validate` and `preview`, which draws what the model can do, are given the averaged weights.
        """
        saved, shown, losses, watch = time.monotonic(), time.monotonic(), [], Watch()
        while self.step < self.settings.steps:
            losses.append(self.train_step())
            watch(losses[-1], self.step)
            if time.monotonic() - shown > 20:
                self.log({"loss": float(np.mean(losses)), "s_per_step": (time.monotonic() - shown) / len(losses)})
                shown, losses = time.monotonic(), []
            if self.step % validate_every == 0 or self.step == self.settings.steps:
                self.log({"validation": self.evaluate(validate)})
            if preview is not None and preview_every and self.step % preview_every == 0:
                self.log({"restorations": self.evaluate(lambda model: preview(model, self.step))})
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()

    def train_step(self) -> float:
        """One optimiser step on the batch of this step; the loss."""
        generator = torch.Generator().manual_seed(
            (self.settings.seed * 1_000_003 + self.step) + self.rank * 2_000_000_011
        )
        x = self.data(self.step).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        with self.autocast(), self.attention():
            loss = self.objective(self.model, x, generator)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.average_gradients()
        self.clip_gradients()
        self.optimizer.step()
        self.ema.update(self.model, self.step)
        self.step += 1
        return float(loss.detach())

    def clip_gradients(self) -> None:
        """Clip the gradient to three times the running mean of its norm.

        Adam's steps have one length however small gradients have become. A fixed bound no longer binds then, and a
        single large gradient can undo a network. A step whose gradient is not finite moves nothing; Diverged where
        there are many of them.
        """
        bound = 1.0 if self.norm is None else 3 * self.norm
        found = float(nn.utils.clip_grad_norm_(self.model.parameters(), bound, error_if_nonfinite=False))
        self.dropped.append(not math.isfinite(found))
        if self.dropped[-1]:
            self.optimizer.zero_grad(set_to_none=True)  # a step without gradients moves nothing
            if sum(self.dropped) > DROPPED_LIMIT:
                count = f"{sum(self.dropped)} of the last {len(self.dropped)} steps"
                raise Diverged(f"training has diverged at step {self.step}: {count} had gradients that are not finite")
            return
        clipped = min(found, bound)
        self.norm = clipped if self.norm is None else 0.99 * self.norm + 0.01 * clipped

    def average_gradients(self) -> None:
        """The mean over all processes, so that each takes the same step."""
        if self.world > 1:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.reshape(gradient.shape) / self.world)

    def attention(self) -> AbstractContextManager[None]:
        """Plain attention on a GPU: a fused one has backward passes in bfloat16 that are not finite."""
        if self.device.type != "cuda":
            return nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return context

    def autocast(self) -> torch.autocast:
        """Mixed precision of the network's arithmetic; the weights and their average stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    @torch.no_grad()
    def evaluate(self, validate: Validate) -> dict[str, float]:
        """`validate` on the averaged weights; the first process does it for all."""
        if self.rank > 0:
            return {}
        own = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema.shadow)
        try:
            with self.autocast():
                return validate(self.model)
        finally:
            self.model.load_state_dict(own)

    def say(self, text: str) -> None:
        """Print a line, once whatever the number of processes."""
        if self.rank == 0:
            print(text, flush=True)

    def log(self, entry: dict[str, Any]) -> None:
        """Print an entry and add it to `log.jsonl`, once whatever the number of processes."""
        if self.rank > 0:
            return
        entry = {"step": self.step, **entry}
        print(json.dumps(entry), flush=True)
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")

    def last_validation(self) -> dict[str, float]:
        """The last entry of the log about the held-out pictures; empty where there is none."""
        log = self.folder / "log.jsonl"
        entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return next((e["validation"] for e in reversed(entries) if "validation" in e), {})

    def save(self) -> None:
        """Write `state.pt` whole or not at all."""
        if self.rank > 0:
            return
        state = {
            "step": self.step,
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "ema": self.ema.shadow,
            "norm": self.norm,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, self.folder / "state.tmp")
        os.replace(self.folder / "state.tmp", self.folder / "state.pt")

    def resume(self) -> bool:
        """Go on from `state.pt` where it is there; ValueError if it was made with other settings."""
        if not (self.folder / "state.pt").exists():
            return False
        state = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
        self._compare(state["settings"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.shadow = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.step, self.norm = state["step"], state.get("norm")
        return True

    def _compare(self, stored: dict[str, Any]) -> None:
        """ValueError where a state's settings differ from these; one that the state does not have had its default."""
        known = {name: value for name, value in stored.items() if name in field_names(TrainSettings)}
        unrecorded = {"kl_weight": self.settings.kl_weight}  # states of earlier versions do not tell
        now, then = asdict(self.settings), asdict(TrainSettings(**{**unrecorded, **known}))
        other = [f"{name} {then[name]!r} (now {value!r})" for name, value in now.items() if then[name] != value]
        if other:
            raise ValueError(f"{self.folder} was trained with other settings: {', '.join(other)}")
