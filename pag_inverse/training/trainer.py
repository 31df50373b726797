"""The training loop, which resumes exactly.

Everything random in step k is a function of (seed, k) alone. A run that was stopped and goes on from its last state
takes the same path as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pag_inverse.runtime.failures import is_out_of_memory
from pag_inverse.storage.json_lines import append_line, read_lines, strict
from pag_inverse.training.crops import Crops
from pag_inverse.training.folder import LOG
from pag_inverse.training.inputs import Hashes
from pag_inverse.training.objectives import Objective, Validate
from pag_inverse.training.settings import TrainSettings
from pag_inverse.training.state import all_finite, check_fits, check_moments, check_same, read_state, write_state
from pag_inverse.training.steps import Diverged, Ema, Watch, learning_rate
from pag_inverse.training.team import Team

Preview = Callable[[Any, int], dict[str, float]]
DROPPED_OF, DROPPED_LIMIT = 100, 20  # steps whose gradients are not finite, of so many


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
        team: Team | None = None,
        inputs: Hashes | None = None,
    ) -> None:
        self.model, self.objective, self.data, self.settings = model.to(device), objective, data, settings
        self.folder, self.device, self.step = folder, device, 0
        self.team, self.inputs = team or Team(), inputs or {}
        self.trained_in = self.team.world  # processes
        self.saved: int | None = None  # the step of the state on the disk, where that tells everything
        self.validation: dict[str, float] | None = None  # the last one
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

        `validate` and `preview`, which draws what the model can do, are given the averaged weights. Of several
        processes the first one reports and saves; the loss is the mean over all, so that all of them diverge alike.
        """
        saved, shown, watch = time.monotonic(), time.monotonic(), Watch()
        losses: list[float] = []

        def report() -> None:
            nonlocal saved, shown, losses
            if time.monotonic() - shown > 20:
                self.log({"loss": float(np.mean(losses)), "s_per_step": (time.monotonic() - shown) / len(losses)})
                shown, losses = time.monotonic(), []
            if self.step % validate_every == 0 or self.step == self.settings.steps:
                self.validation = self.evaluate(validate)
                self.log({"validation": self.validation})
            if preview is not None and preview_every and self.step % preview_every == 0:
                self.log({"restorations": self.evaluate(lambda model: preview(model, self.step))})
            if time.monotonic() - saved > save_every or self.step == self.settings.steps:
                self.save()
                saved = time.monotonic()

        self.team.attempt(self.save)
        while self.step < self.settings.steps:
            loss = self.train_step()
            watch(loss, self.step)
            if self.team.rank == 0:
                losses.append(loss)
                self.team.attempt(report)
        self.team.meet()

    def train_step(self) -> float:
        """One optimiser step on the batch of this step; the loss, its mean over all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        loss = self.team.meet(self.team.attempt(self.find_gradients) or 0.0)
        self.average_gradients()
        self.clip_gradients()
        self.optimizer.step()
        self.ema.update(self.model, self.step)
        self.step += 1
        return loss

    def find_gradients(self) -> float:
        """The gradients of this process's batch, and its loss; ValueError where it does not fit into memory."""
        seed = (self.settings.seed * 1_000_003 + self.step) + self.team.rank * 2_000_000_011
        generator = torch.Generator().manual_seed(seed)
        try:
            x = self.data(self.step).to(self.device)
            with self.autocast(), self.attention():
                loss: Tensor = self.objective(self.model, x, generator)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(f"batch is {self.settings.batch}: it does not fit into memory; take less") from error
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
        if self.team.world > 1:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in gradients])
            self.team.add(flat)
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.reshape(gradient.shape) / self.team.world)

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
        """`validate` on the averaged weights."""
        own = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema.shadow)
        try:
            with self.autocast():
                return validate(self.model)
        finally:
            self.model.load_state_dict(own)

    def say(self, text: str) -> None:
        """Print a line, once whatever the number of processes."""
        if self.team.rank == 0:
            print(text, flush=True)

    def log(self, entry: dict[str, Any]) -> None:
        """Print an entry and add it to `log.jsonl`."""
        entry = {"step": self.step, **entry}
        print(json.dumps(strict(entry)), flush=True)
        append_line(self.folder / LOG, entry)

    def last_validation(self) -> dict[str, float]:
        """The last one about the held-out pictures; empty where there was none. Earlier states do not tell: the log."""
        if self.validation is not None:
            return self.validation
        found = [entry["validation"] for entry in read_lines(self.folder / LOG)[0] if "validation" in entry]
        last = found[-1] if found and isinstance(found[-1], dict) else {}
        return {str(name): value for name, value in last.items() if isinstance(value, float)}

    def save(self) -> None:
        """Write `state.pt` whole or not at all, once a step; Diverged where the weights are no longer finite."""
        if self.team.rank > 0 or self.saved == self.step:
            return
        if not (all_finite(self.model.state_dict()) and all_finite(self.ema.shadow)):
            raise Diverged(f"training has diverged at step {self.step}: its weights hold NaN or Inf")
        state = {
            "step": self.step,
            "settings": asdict(self.settings),
            "inputs": self.inputs,
            "processes": self.trained_in,
            "validation": self.validation,
            "model": self.model.state_dict(),
            "ema": self.ema.shadow,
            "norm": self.norm,
            "optimizer": self.optimizer.state_dict(),
        }
        write_state(self.folder, state)
        self.saved = self.step

    def resume(self) -> bool:
        """Take in `state.pt` where it is there; nothing is written.

        ValueError: a damaged file, other settings, other inputs, another network, another number of processes for
        what is left to train.
        """
        state = read_state(self.folder)
        if state is None:
            return False
        check_same(self.folder, state, self.settings, self.inputs)
        check_fits(self.folder, state, self.model.state_dict(), self.settings.steps)
        self.step, self.norm, self.validation = state["step"], state.get("norm"), state.get("validation")
        self.saved = self.step if "inputs" in state else None
        self.trained_in = state.get("processes", self.team.world)
        if self.step < self.settings.steps and self.trained_in != self.team.world:
            raise ValueError(f"{self.folder} was trained in {self.trained_in} processes (now {self.team.world})")
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder} holds the state of another optimiser; choose another folder") from error
        check_moments(self.folder, self.optimizer)
        self.model.load_state_dict(state["model"])
        self.ema.shadow = {k: v.to(self.device) for k, v in state["ema"].items()}
        return True
