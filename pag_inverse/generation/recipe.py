"""From a row to the objects of a run: priors, sampler, conditions; and their description."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.validation import check_shape
from pag_inverse.generation.plans import SampleRequest, SampleRow
from pag_inverse.generation.samplers import DDIM, DDPM, Sampler
from pag_inverse.generation.two_models import TwoModelGuidance, conditioned
from pag_inverse.guidance import (
    Guidance,
    GuidedModel,
    NoGuidance,
    PerturbedAttentionGuidance,
    make_combination,
    make_perturbation,
    spelling,
)
from pag_inverse.priors import PixelPrior, Prior, load_prior
from pag_inverse.priors.load import prompt_encoder
from pag_inverse.runtime.batching import check_memory
from pag_inverse.runtime.streams import stream_seed


@dataclass(frozen=True)
class Item:
    """A picture to sample: its name, which keys its random stream, and its class or prompt where it has one."""

    name: str
    label: int | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class SampleRecipe:
    """The objects of a run; nothing about it is left to check."""

    row: SampleRow
    prior: Prior
    unconditional: Prior | None
    guidance: Guidance
    sampler: Sampler
    size: int
    embed: Callable[[str], Tensor] | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W) of its pictures."""
        return check_shape((3, self.size, self.size))

    def condition(self, items: Sequence[Item]) -> Tensor | None:
        """The classes (B,) of a batch, or the embeddings (B, L, D) of its prompts."""
        if self.embed is not None:
            return torch.cat([self.embed(item.prompt or "") for item in items])
        labels = [item.label for item in items if item.label is not None]
        return torch.tensor(labels, device=self.prior.device) if labels else None

    def model(self, items: Sequence[Item]) -> GuidedModel:
        """The prior under the guidance of a batch."""
        return GuidedModel(self.prior, conditioned(self.guidance, self.condition(items)))


def make_guidance(row: SampleRow, prior: Prior, unconditional: Prior | None = None) -> Guidance:
    """A row's guidance, PAG, classifier-free guidance, both, or none; each batch puts it under its own condition."""
    cfg = row.cfg if unconditional is None else 1.0
    condition = getattr(prior, "empty", None) if row.prompts else None
    guidance: Guidance = NoGuidance()
    if row.s > 0 or cfg != 1:
        guidance = PerturbedAttentionGuidance(
            row.s,
            row.layers,
            cfg=cfg,
            condition=condition,
            interval=row.pag_interval,
            perturbation=row.perturbation,
            combination=row.combination,
            adaptive=row.adaptive_scale,
        )
    return guidance if unconditional is None else TwoModelGuidance(guidance, unconditional, row.cfg)


class LoadedPriors:
    """The priors of the run that is at work; those of the run before are let go."""

    def __init__(self, request: SampleRequest, device: str) -> None:
        self.request, self.device = request, device
        self._held: dict[str, Prior] = {}

    def of(self, row: SampleRow) -> tuple[Prior, Prior | None]:
        """The prior of a row, and its unconditional one."""
        names = [name for name in (row.prior, row.unconditional_prior) if name is not None]
        self._held = {name: prior for name, prior in self._held.items() if name in names}
        for name in names:
            if name not in self._held:
                self._held[name] = self._load(name, self.request.prior_config if name == row.prior else None)
        return self._held[row.prior], self._held[row.unconditional_prior] if row.unconditional_prior else None

    def _load(self, name: str, config: Path | None) -> Prior:
        request = self.request
        return load_prior(
            name,
            weights_dir=request.weights_dir,
            download=request.download,
            config=config,
            prediction=request.prediction,
            class_conditional=True,
            device=self.device,
            precision=request.precision,
        )


def make_sample_recipe(row: SampleRow, prior: Prior, unconditional: Prior | None = None) -> SampleRecipe:
    """The objects of a row over loaded priors; ValueError: what does not fit."""
    size = row.size or prior.image_size
    check_memory(size, size)
    _check_size(prior, size)
    shape = prior.state_shape((3, size, size))
    if row.s > 0:
        prior.resolve_layers(row.layers)
    if unconditional is not None:
        _check_pair(prior, unconditional, shape, size)
    elif row.cfg != 1 and classes_of(prior):
        raise ValueError(
            f"cfg is {row.cfg:g}, but prior {prior.name} is class-conditional alone: --uncond-prior names the network "
            "without a condition"
        )
    sampler: Sampler = DDPM() if row.sampler == "ddpm" else DDIM(row.eta)
    embed = lru_cache(maxsize=64)(prompt_encoder(prior)) if row.prompts else None
    return SampleRecipe(row, prior, unconditional, make_guidance(row, prior, unconditional), sampler, size, embed)


def _check_size(prior: Prior, size: int) -> None:
    """ValueError, with the sides next to it, for a side that is no multiple of the prior's."""
    n = prior.multiple
    if size % n:
        allowed = " or ".join(str(side) for side in (size // n * n, -(-size // n) * n) if side)
        raise ValueError(
            f"size is {size}; prior {prior.name} samples pictures with sides that are multiples of {n}: take {allowed}"
        )


def classes_of(prior: Prior) -> int:
    """The number of classes of a prior; 0 for one without."""
    return prior.classes if isinstance(prior, PixelPrior) else 0


def _check_pair(prior: Prior, unconditional: Prior, shape: tuple[int, ...], size: int) -> None:
    """ValueError where the eps of two priors cannot be combined."""
    if classes_of(unconditional):
        raise ValueError(f"--uncond-prior {unconditional.name} is class-conditional; it must be unconditional")
    same = unconditional.state_shape((3, size, size)) == shape and np.allclose(unconditional.betas, prior.betas)
    if not same:
        raise ValueError(
            f"--uncond-prior {unconditional.name} has other states or betas than prior {prior.name}: their predictions "
            "cannot be combined"
        )


def make_items(
    prior: Prior, count: int, seed: int, prompts: Sequence[str] = (), classes: Sequence[int] | None = None
) -> list[Item]:
    """The pictures of a run: `count` of them, of each prompt where there are several.

    `classes` are taken in turn; without them each picture draws its own. A picture's name depends on its number and,
    with several prompts, that of its prompt, and on nothing else. ValueError: classes that the prior does not have.
    """
    if len(prompts) > 1:
        return [Item(f"{p:05d}_{i:04d}", prompt=prompts[p]) for p in range(len(prompts)) for i in range(count)]
    known, names = classes_of(prior), [f"{i:06d}" for i in range(count)]
    if classes is not None:
        _check_classes(prior, classes)
        return [Item(name, classes[i % len(classes)]) for i, name in enumerate(names)]
    if known:
        return [Item(name, _drawn_class(seed, name, known)) for name in names]
    return [Item(name, prompt=prompts[0] if prompts else None) for name in names]


def _check_classes(prior: Prior, classes: Sequence[int]) -> None:
    known = classes_of(prior)
    if not known:
        raise ValueError(f"--classes: prior {prior.name} is not class-conditional")
    if wrong := [label for label in classes if not 0 <= label < known]:
        raise ValueError(f"--classes {wrong[0]}: prior {prior.name} has the classes 0 to {known - 1}")


def _drawn_class(seed: int, name: str, known: int) -> int:
    return int(np.random.default_rng(stream_seed(seed, name, "class")).integers(known))


def describe(recipe: SampleRecipe, request: SampleRequest, prompts: Sequence[str]) -> Mapping[str, Any]:
    """What decides the samples; runs with equal descriptions are the same run, whatever their number of pictures."""
    row, prior = recipe.row, recipe.prior
    prompts = prompts if row.prompts else ()
    return {
        "prior": row.prior,
        "sampler": row.sampler,
        "steps": row.steps,
        "eta": row.eta,
        "s": row.s,
        "layers": list(prior.resolve_layers(row.layers)) if row.s > 0 else [],
        "perturbation": spelling(make_perturbation(row.perturbation)),
        "combination": spelling(make_combination(row.combination)),
        "pag_interval": list(row.pag_interval),
        **({"adaptive_scale": row.adaptive_scale} if row.adaptive_scale else {}),  # earlier runs keep their identity
        "cfg": row.cfg,
        "unconditional_prior": row.unconditional_prior,
        "prompt": prompts[0] if len(prompts) == 1 else None,
        "prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest() if prompts else None,
        "classes": None if request.classes is None else list(request.classes),
        "count": request.count,
        "size": recipe.size,
        "seed": request.seed,
        "device": request.device.partition(":")[0],
        "precision": request.precision,
        "prediction": prior.prediction,
        **({"explain": list(request.explain)} if request.explain else {}),
        "prior_sha256": prior.fingerprint,
        "unconditional_sha256": recipe.unconditional.fingerprint if recipe.unconditional else None,
    }


TOLD = ("prior", "unconditional_prior", "count")  # settings that decide nothing


def further_guidance(settings: Mapping[str, Any]) -> str:
    """Of a run's description: what of its guidance acts and is not the default."""
    pag = settings["s"] > 0
    combined = pag or (settings["cfg"] != 1 and settings["unconditional_prior"] is None)
    low, high = settings["pag_interval"]
    found = {
        f"perturbation {settings['perturbation']}": pag and settings["perturbation"] != "identity",
        f"combination {settings['combination']}": combined and settings["combination"] != "plain",
        f"interval {low:g} to {high:g}": pag and (low, high) != (0.0, 1.0),
        f"adaptive scale {settings.get('adaptive_scale', 0.0):g}": pag and settings.get("adaptive_scale", 0.0) > 0,
    }
    return ", ".join(text for text, told in found.items() if told)
