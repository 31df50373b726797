"""One call from a prior to samples of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pag_inverse.data.images import to_uint8
from pag_inverse.generation.chain import Callback, run_sampler
from pag_inverse.generation.plans import DEFAULT_PRIOR, SampleRow, default_row
from pag_inverse.generation.recipe import Item, SampleRecipe, make_items, make_sample_recipe
from pag_inverse.generation.samplers import SAMPLERS, Sampler
from pag_inverse.guidance import Explainer, Guidance
from pag_inverse.priors import LatentPrior, Prior, load_prior
from pag_inverse.runtime.streams import stream_seed
from pag_inverse.settings import check_choice, check_whole


@dataclass(frozen=True)
class SampleOutput:
    """N samples: x (N, 3, H, W), float32, clamped to [-1, 1].

    labels: the class of each, None for an unconditional prior. prompts: the prompt of each, None without one. failed:
    sample -> the step at which it left the finite numbers; its x is zero. stopped: whether a callback ended the run;
    then x holds the samples of the batch that was at work and of those before.

    >>> from pag_inverse import sample
    >>> output = sample("pixel", 2, steps=2)
    >>> output.x.shape, output.pictures.shape, output.failed
    (torch.Size([2, 3, 64, 64]), (2, 64, 64, 3), {})
    """

    x: Tensor
    labels: tuple[int | None, ...]
    prompts: tuple[str | None, ...]
    failed: dict[int, int]
    stopped: bool

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """The samples as pictures (N, H, W, 3)."""
        return np.stack([to_uint8(x) for x in self.x])


def sample(
    prior: Any = DEFAULT_PRIOR,
    count: int = 16,
    *,
    guidance: Guidance | None = None,
    s: float | None = None,
    layers: Sequence[str] | None = None,
    cfg: float | None = None,
    sampler: str | Sampler | None = None,
    steps: int | None = None,
    size: int | None = None,
    prompts: Sequence[str] = (),
    classes: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 8,
    callback: Callback | None = None,
    explain: Explainer | None = None,
) -> SampleOutput:
    """Sample `count` pictures of a prior under guidance, Algorithm 1 of the paper.

    prior: what `load_prior` takes. prompts: one for all pictures, or several, of each of which `count` are made.
    classes: of a class-conditional prior, in turn; by default each picture draws its own. s, layers, cfg: of PAG and
    of classifier-free guidance (Eqs. 10 and 14); by default those of the prior's row in `configs/generation`, where it
    has one. guidance: an object in their place; its method `conditioned` gets the prompts or classes of each batch.
    sampler: "ddpm", "ddim", or an object such as DDIM(eta=0.5). steps: 1 to 1000. size: side in pixels, by default the
    row's or the prior's. `batch_size` pictures are made at once, which changes no sample but by rounding.
    `callback(done, steps, step)` is called after each step of a batch; `step` has `z`, `x0` and `eps`. Returning True
    stops the run. explain: an `Explainer`, which records what guidance does to each picture. ValueError: what does not
    fit.

    >>> from pag_inverse import PerturbedAttentionGuidance, sample
    >>> guidance = PerturbedAttentionGuidance(3.0, ["up_blocks.1.attentions.1"])
    >>> sample("pixel", 1, guidance=guidance, sampler="ddim", steps=2).x.shape
    torch.Size([1, 3, 64, 64])
    """
    check_whole("count", count, 1), check_whole("batch_size", batch_size, 1), check_whole("seed", seed)
    if guidance is not None and (s, layers, cfg) != (None, None, None):
        raise ValueError("guidance is given, which has its own s, layers and cfg; leave those out")
    prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    loaded = prior if isinstance(prior, Prior) else _load(prior)
    row = _row(loaded, bool(prompts), {"s": s, "layers": layers, "cfg": cfg, "steps": steps, "size": size}, sampler)
    recipe = make_sample_recipe(row if guidance is None else replace(row, s=0.0, cfg=1.0), loaded)
    items = make_items(loaded, count, seed, prompts, classes)
    recipe = replace(
        recipe,
        guidance=guidance or recipe.guidance,
        sampler=sampler if isinstance(sampler, Sampler) else recipe.sampler,
    )
    return _sample(recipe, items, seed, batch_size, callback, explain)


def _load(prior: Any) -> Prior:
    return load_prior(prior, class_conditional=True)


def _row(prior: Prior, prompted: bool, given: dict[str, Any], sampler: str | Sampler | None) -> SampleRow:
    """The prior's row, without PAG where the prior does not have the row's layers; with what is given."""
    name = "" if getattr(prior, "source", None) is None else prior.name  # an object has no row
    row = default_row(name, prompted, "latent" if isinstance(prior, LatentPrior) else "pixel")
    if isinstance(sampler, str):
        given = {**given, "sampler": check_choice("sampler", sampler, tuple(SAMPLERS))}
    known = {word for layer in _layers(prior) for word in layer}
    if not set(row.layers) <= known:
        row = replace(row, s=0.0, layers=())
    given = {name: tuple(value) if name == "layers" and value else value for name, value in given.items()}
    row = replace(row, prompts=prompted, **{name: value for name, value in given.items() if value is not None})
    if row.s > 0 and not row.layers:
        raise ValueError(f"s is {row.s:g} but prior {prior.name} has no row with layers; name them with layers")
    if row.cfg != 1 and not prompted:
        raise ValueError(f"cfg is {row.cfg:g} but there are no prompts; classifier-free guidance needs them")
    return row


def _layers(prior: Prior) -> list[tuple[str, str]]:
    unet = getattr(prior, "unet", None)
    return [(layer.checkpoint, layer.diffusers) for layer in prior.layers()] if unet is not None else []


def _sample(
    recipe: SampleRecipe,
    items: Sequence[Item],
    seed: int,
    batch_size: int,
    callback: Callback | None,
    explain: Explainer | None,
) -> SampleOutput:
    found, failed, stopped = [], {}, False
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        model = recipe.model(batch)
        seeds = [stream_seed(seed, item.name, "sampling") for item in batch]
        made = run_sampler(
            model, recipe.sampler, recipe.image_shape, recipe.row.steps, seeds, callback=callback, explain=explain
        )
        x = made.x.float().clamp(-1, 1).cpu()
        for b, step in made.failed.items():
            failed[start + b], x[b] = step, 0.0
        found.append(x)
        if stopped := made.stopped:
            break
    x = torch.cat(found)
    kept = items[: len(x)]
    return SampleOutput(x, tuple(i.label for i in kept), tuple(i.prompt for i in kept), failed, stopped)
