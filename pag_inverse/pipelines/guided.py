"""PAG in a stock pipeline: a U-Net whose output is guided already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pag_inverse.guidance.perturbation import perturbed_twin
from pag_inverse.priors.networks import own_view
from pag_inverse.settings import check_number


def guided_unet(unet: Any, s: float, layers: Sequence[str], *, cfg: float = 1.0) -> Any:
    """A view of a U-Net of diffusers that returns eps + s (eps - eps_hat), Eq. 10, for any pipeline that calls it.

    `cfg` is the guidance_scale that the pipeline is called with; at 1 or less the pipeline has no classifier-free
    guidance. Above, its batch is (null, prompt), it computes null + cfg (prompt - null), and the view returns
    prompt + (s / cfg) (prompt - prompt_hat) for the second half: the pipeline arrives at Eq. 14. A network that
    predicts v is guided in v, which is the same: eps is linear in v, with one factor and one term for all passes.
    The weights are those of `unet`, which is left as it is. ValueError: a negative s, s without layers, or a layer that
    holds no self-attention.

    >>> from diffusers import UNet2DModel
    >>> from pag_inverse.pipelines import guided_unet
    >>> unet = UNet2DModel(block_out_channels=(32, 32), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    ...                    up_block_types=("AttnUpBlock2D", "UpBlock2D"))
    >>> guided = guided_unet(unet, 2.0, ["mid_block.attentions.0"])
    """
    s, cfg = check_number("s", s), check_number("cfg", cfg)
    if s > 0 and not layers:
        raise ValueError(f"s is {s} but no layer is named; name the self-attention layers to perturb")
    view = own_view(unet)
    if s == 0:
        return view
    hook = _Guide(perturbed_twin(view, layers), s, cfg)
    view.register_forward_hook(hook, with_kwargs=True)
    return view


class _Guide:
    """A forward hook that adds s (eps - eps_hat) to what a U-Net returns."""

    def __init__(self, perturbed: nn.Module, s: float, cfg: float) -> None:
        self.perturbed, self.s, self.cfg = perturbed, s, cfg

    @torch.no_grad()
    def __call__(self, _: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        eps = output[0]
        batch = len(eps)
        halves = self.cfg > 1
        first = batch // 2 if halves else 0
        given = {**_rows(dict(kwargs), batch, first), "return_dict": False}
        eps_hat = self.perturbed(*_rows(args, batch, first), **given)[0]
        scale = self.s / self.cfg if halves else self.s
        guided = torch.cat([eps[:first], eps[first:] + scale * (eps[first:] - eps_hat)])
        return (guided, *output[1:]) if isinstance(output, tuple) else type(output)(guided)


def _rows(value: Any, batch: int, first: int) -> Any:
    """The arguments of a call for the rows of a batch from `first` on; what has no row for each image stays."""
    if isinstance(value, Tensor):
        return value[first:] if value.ndim and len(value) == batch else value
    if isinstance(value, (list, tuple)):
        return type(value)(_rows(one, batch, first) for one in value)
    return {key: _rows(one, batch, first) for key, one in value.items()} if isinstance(value, dict) else value
