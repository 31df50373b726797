"""Training of small priors: crops, objectives, and a loop that resumes exactly.

Everything random in step k is a function of (seed, k) alone, so a run that was killed and goes on from its last state
takes the same path as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from pag_inverse.data.images import SUFFIXES, read_image, to_uint8
from pag_inverse.schedule import T

Objective = Callable[[Any, Tensor, torch.Generator], Tensor]
VALIDATION_TIMESTEPS = (20, 100, 250, 500, 750, 950)


@dataclass(frozen=True)
class TrainSettings:
    """What defines a run: equal settings and data make equal runs. `crops`: sides in pixels and their shares."""

    kind: str
    steps: int
    batch: int
    crops: tuple[tuple[int, float], ...]
    learning_rate: float
    warmup: int
    ema: float
    seed: int
    precision: str
    betas: str
    init: str | None
    sigma_limit: float = 4.0
    recolour: float = 0.0


class Crops:
    """Random crops with flips at native scale, held in memory as uint8; batch k depends on (seed, k) only.

    Of several processes each has crops of its own, of one side. A batch holds `batch` crops of the smallest side; of
    a larger side as many as have the same number of pixels. A share `recolour` of them gets other colours.
    """

    def __init__(
        self,
        files: list[Path],
        crops: tuple[tuple[int, float], ...],
        batch: int,
        seed: int,
        rank: int = 0,
        recolour: float = 0.0,
    ) -> None:
        self.sides = [side for side, _ in crops]
        self.shares = np.cumsum([share for _, share in crops]) / sum(share for _, share in crops)
        self.batch, self.seed, self.rank, self.recolour = batch, seed, rank, recolour
        pictures = [to_uint8(np.asarray(read_image(file))) for file in files]
        self.pictures = [p for p in pictures if min(p.shape[:2]) >= max(self.sides)]
        if not self.pictures:
            raise ValueError(f"no picture is at least {max(self.sides)} pixels on its short side")

    def __call__(self, step: int) -> Tensor:
        """The batch of this step, (B, 3, side, side), float32 in [-1, 1]."""
        rng = np.random.default_rng([self.seed, step])
        side = self.sides[int(np.searchsorted(self.shares, rng.random(), side="right"))]
        if self.rank > 0:
            rng = np.random.default_rng([self.seed, step, self.rank])
        count = max(1, self.batch * min(self.sides) ** 2 // side**2)
        return torch.stack([self._crop(rng, side) for _ in range(count)])

    def _crop(self, rng: np.random.Generator, side: int) -> Tensor:
        picture = self.pictures[rng.integers(len(self.pictures))]
        top, left = (int(rng.integers(n - side + 1)) for n in picture.shape[:2])
        crop = picture[top : top + side, left : left + side]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if self.recolour and rng.random() < self.recolour:
            crop = other_colours(crop, rng)
        return torch.from_numpy(crop.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1.0)


def other_colours(crop: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A crop (H, W, 3), 0 to 255, with its channels permuted and its saturation raised 1 to 4 times, clipped.

    Photographs seldom hold smooth areas of saturated colours: a network that has not seen them draws texture there.
    """
    permuted = crop[..., rng.permutation(3)].astype(np.float32)
    grey = permuted.mean(-1, keepdims=True)
    return np.clip(grey + 4.0 ** rng.random() * (permuted - grey), 0, 255)


def split_held_out(folder: Path, share: float = 0.04) -> tuple[list[Path], list[Path]]:
    """The pictures of a folder and those below it as (training, held out): every 1/share-th by name is held out."""
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if len(files) < 2:
        raise ValueError(f"{folder} holds {len(files)} pictures; training needs at least 2")
    every = max(2, round(1 / share))
    return [f for i, f in enumerate(files) if i % every], files[::every]


def eps_objective(
    abar: Tensor, encode: Callable[[Tensor, torch.Generator], Tensor] | None = None, sigma_limit: float = 4.0
) -> Objective:
    """E w(t) ||eps - eps_theta(sqrt(abar) x0 + sqrt(1 - abar) eps, t)||^2; on latents with `encode`.

    t = 1000 u^1.5 for u uniform, since restorations are decided where pictures show;
    w = min(sigma, sigma_limit) for sigma^2 = (1 - abar) / abar: on photographs the error of eps falls as 1 / sigma, so
    every level up to the limit weighs alike.
    """
    weights = ((1 - abar) / abar).sqrt().clamp(max=sigma_limit)

    def loss(model: Any, x: Tensor, generator: torch.Generator) -> Tensor:
        z = x if encode is None else encode(x, generator)
        t = (T * torch.rand(len(z), generator=generator) ** 1.5).long().to(z.device)
        return (weights.to(z)[t] * eps_error(model, z, t, abar, generator)).mean()

    return loss


def eps_error(model: Any, z: Tensor, t: Tensor, abar: Tensor, generator: torch.Generator) -> Tensor:
    """The squared error of the predicted noise, one number an image."""
    eps = torch.randn(z.shape, generator=generator).to(z)
    a = abar.to(z)[t].reshape(-1, 1, 1, 1)
    prediction = model(a.sqrt() * z + (1 - a).sqrt() * eps, t).sample
    return (prediction.float() - eps).square().mean(dim=(1, 2, 3))


def autoencoder_objective(kl_weight: float) -> Objective:
    """E |x - D(E(x))| + kl_weight KL(posterior || N(0, I)), both as means over their elements."""

    def loss(model: Any, x: Tensor, generator: torch.Generator) -> Tensor:
        posterior = model.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(x)
        reconstruction = model.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).float().mean()
        return (reconstruction.float() - x).abs().mean() + kl_weight * kl

    return loss


class Diverged(ValueError):
    """A network that has forgotten what it knew; the last state saved is from before, or from just then."""


class Watch:
    """Told every loss; raises Diverged where the mean of the last 200 is 1.6 times the lowest such mean so far.

    A network can lose half of what it knows within twenty steps and stay so: the loss doubles and no more.
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
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
        self.ema = Ema(model, settings.ema)

    def run(
        self,
        save_every: float,
        validate_every: int,
        validate: Callable[[Any], dict[str, float]],
        strip_every: int = 0,
        strip: Callable[[Any, int], dict[str, float]] | None = None,
    ) -> None:
        """Train to `settings.steps`, saving every `save_every` seconds; prints and logs the loss. Diverged: `Watch`.

        `validate` and `strip`, which draws what the model can do, are given the averaged weights.
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
            if strip is not None and strip_every and self.step % strip_every == 0:
                self.log({"restorations": self.evaluate(lambda model: strip(model, self.step))})
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()

    def train_step(self) -> float:
        """One optimiser step on the batch of this step."""
        generator = torch.Generator().manual_seed(
            (self.settings.seed * 1_000_003 + self.step) + self.rank * 2_000_000_011
        )
        x = self.data(self.step).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        with self.autocast():
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
        """To three times the running mean of their norm: Adam's steps are of one length however small gradients have
        become, so that a single large one can undo a network where a fixed bound no longer binds."""
        bound = 1.0 if self.norm is None else 3 * self.norm
        found = float(nn.utils.clip_grad_norm_(self.model.parameters(), bound, error_if_nonfinite=False))
        if not math.isfinite(found):
            self.optimizer.zero_grad(set_to_none=True)  # a step without gradients moves nothing
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

    def autocast(self) -> torch.autocast:
        """Mixed precision of the network's arithmetic; the weights and their average stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    @torch.no_grad()
    def evaluate(self, validate: Callable[[Any], dict[str, float]]) -> dict[str, float]:
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
        if self.rank > 0:
            return
        entry = {"step": self.step, **entry}
        print(json.dumps(entry), flush=True)
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")

    def last_validation(self) -> dict[str, float]:
        """What the held-out pictures said last, from the log; empty if they were never asked."""
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
        """Take up `state.pt` where it is; ValueError if it was made with other settings."""
        if not (self.folder / "state.pt").exists():
            return False
        state = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
        now = asdict(self.settings)
        then = asdict(TrainSettings(**state["settings"]))  # settings that came later had their defaults
        other = [k for k, v in now.items() if then[k] != v]
        if other:
            raise ValueError(
                f"{self.folder} was trained with other settings: "
                + ", ".join(f"{k} {then[k]!r} (now {now[k]!r})" for k in other)
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.shadow = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.step, self.norm = state["step"], state.get("norm")
        return True


def validation_crops(files: list[Path], side: int, count: int = 16) -> Tensor:
    """Centre crops of held-out pictures, (B, 3, side, side); ValueError where none is large enough."""
    crops = []
    for file in files[:count]:
        picture = np.asarray(read_image(file))
        top, left = ((n - side) // 2 for n in picture.shape[1:])
        if min(top, left) >= 0:
            crops.append(torch.from_numpy(np.ascontiguousarray(picture[:, top : top + side, left : left + side])))
    if not crops:
        raise ValueError(f"no held-out picture is at least {side} pixels on its short side")
    return torch.stack(crops)


def validate_eps(
    files: list[Path],
    side: int,
    abar: Tensor,
    encode: Callable[[Tensor, torch.Generator], Tensor] | None,
    device: torch.device,
) -> Callable[[Any], dict[str, float]]:
    """A function of a model: its squared error on held-out crops for each noise level, the noise always the same."""
    x = validation_crops(files, side).to(device)

    def validate(model: Any) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        z = x if encode is None else encode(x, generator)
        levels = [(t, torch.full((len(z),), t, device=device)) for t in VALIDATION_TIMESTEPS]
        return {f"t{t}": float(eps_error(model, z, ts, abar, generator).mean()) for t, ts in levels}

    return validate


def validate_autoencoder(files: list[Path], side: int, device: torch.device) -> Callable[[Any], dict[str, float]]:
    """A function of a model: round-trip PSNR (data range 2) and the latent's deviation on held-out crops."""
    x = validation_crops(files, side).to(device)

    def validate(model: Any) -> dict[str, float]:
        z = model.encode(x).latent_dist.mean
        mse = (model.decode(z).sample.float().clamp(-1, 1) - x).square().mean(dim=(1, 2, 3))
        return {"psnr": float((10 * torch.log10(4 / mse)).mean()), "latent_std": float(z.float().std())}

    return validate
