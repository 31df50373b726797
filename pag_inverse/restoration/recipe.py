"""From a checked request to the objects of a run: prior, guidance, operator, measurement; and their description."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from operators import Noise, Operator, make_noise, make_operator
from pag_inverse.runtime.allocation import settle_freed_memory
from pag_inverse.restoration.subjects import Subject, own_operator
from pag_inverse.priors.checkpoints.picture_side import picture_side
from pag_inverse.storage.records import sha256
from pag_inverse.restoration.request import Request
from pag_inverse.settings.files import operator_size
from pag_inverse.guidance.guidance import Guidance, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import LatentPrior, Prior, load_prior
from pag_inverse.priors.load import prompt_of
from pag_inverse.solvers.step_sizes import rescaled
from pag_inverse.runtime.streams import batch_draw, operator_rng, stream_seed


@dataclass
class Setup:
    """The objects of a run."""

    prior: Prior
    guidance: Guidance
    noise: Noise
    size: int


def wire(request: Request, prior: Prior | None = None) -> Setup:
    """Make the objects that the request names; its prior is loaded unless it is given."""
    prior = prior or request_prior(request)
    check_side(request, prior)
    row = request.row
    if request.prompt is not None and not (isinstance(prior, LatentPrior) and prior.empty is not None):
        raise ValueError(f"prior {prior.name} takes no prompt")
    condition = prompt_of(prior, request.prompt) if request.prompt is not None else None
    if row.s > 0 or request.cfg != 1:
        layers = prior.resolve_layers(row.layers)
        guidance: Guidance = PerturbedAttentionGuidance(
            row.s, layers, cfg=request.cfg, condition=condition, interval=row.options.pag_interval
        )
    else:
        guidance = NoGuidance(condition)
    sigma = request.sigma
    noise = make_noise("gaussian", sigma) if sigma else make_noise("none")
    return Setup(prior, guidance, noise, request.size or prior.image_size)


def check_side(request: Request, prior: Prior) -> None:
    """ValueError where the operators were chosen for another size of pictures than the prior's turns out to be."""
    sides = (picture_side(request.prior), prior.image_size)
    if request.size is None and len({operator_size(request.task.dataset, side) for side in sides}) > 1:
        raise ValueError(f"prior {prior.name} works at {prior.image_size} pixels: give --size {prior.image_size}")


def settled(request: Request, prior: Prior, operator: Operator) -> Request:
    """The request with its step sizes brought to the chain and, for the embedded priors' rows, the pictures' size."""
    if request.sizes:
        scaled = rescaled(request.row, request.tuned_chain, request.task.solver, prior)
        row = replace(request.row, **{name: getattr(scaled, name) for name in request.sizes})
        request = replace(request, row=row, sizes=())
    if request.tuned_side is None:
        return request
    _, height, width = operator.in_shape
    return replace(request, row=request.row.at_side(math.sqrt(height * width), request.tuned_side), tuned_side=None)


def settle_memory(request: Request, operator: Operator) -> None:
    """What becomes of freed memory while such pictures are restored on a processor."""
    if request.device == "cpu":
        _, height, width = operator.in_shape
        settle_freed_memory(height * width, request.low_memory)


def request_prior(request: Request) -> Prior:
    if request.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {request.device}: this machine has no usable GPU; there is cpu")
    if request.device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps: not on this machine; there is cpu")
    allow_tf32(request.tf32)
    return load_prior(
        request.prior,
        weights_dir=request.weights_dir,
        download=request.download,
        config=request.prior_config,
        prediction=request.prediction,
        device=request.device,
        precision=request.precision,
        compile=request.compile,
        channels_last=request.channels_last,
        low_memory=request.low_memory,
    )


def allow_tf32(allowed: bool | None) -> None:
    """Let the GPU round float32 factors to 10 bits of mantissa; None leaves torch's own choice."""
    if allowed is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def build_operator(request: Request, setup: Setup, subjects: Sequence[Subject]) -> Operator:
    """The operator of a batch: each image's own box or kernel, or the user's mask or kernel."""
    if request.measurement is not None:
        operator = own_operator(request)
    else:
        rngs = [operator_rng(request.seed, subject.name) for subject in subjects]
        shape = (3, setup.size, setup.size)
        operator = make_operator(request.task.operator.name, shape, request.task.operator.settings, rngs)
    return operator.to(request.device, torch.float32)


def measure(request: Request, setup: Setup, operator: Operator, subjects: Sequence[Subject]) -> Tensor:
    """y = A(x) + n with each image's own noise; or the user's measurement, multiplied by its mask."""
    images = torch.stack([torch.from_numpy(subject.image) for subject in subjects]).to(request.device)
    if request.measurement is not None:
        return images * operator.observation_mask(images)
    seeds = [stream_seed(request.seed, subject.name, "measurement") for subject in subjects]
    y = setup.noise(operator.forward(images), batch_draw(seeds, request.device))
    return y if request.task.noise_in_hole else y * operator.observation_mask(y)


def residual_unit(request: Request, operator: Operator, y: Tensor) -> Tensor:
    """sigma sqrt(m), what ||y - A x|| is for the truth; sqrt(m) alone where sigma is not known or 0."""
    measured = operator.observation_mask(y).flatten(1).sum(dim=1).sqrt()
    return measured * request.sigma if request.sigma else measured


def describe(request: Request, setup: Setup) -> dict[str, Any]:
    """What is used, printed and saved; two runs with equal descriptions are the same run."""
    row = asdict(request.row)
    options = row.pop("options")
    psld = ("renoise_prediction", "encode", "ddim_eta", "encode_interval")
    own = psld if request.task.solver == "psld" else ("variance",)
    shared = ("spacing", "step_scaling", "noise_floor", "step_limit")
    parts = ("gradient_interval", "gradient_part", "pag_interval")
    if row["gamma"] is None:
        row.pop("gamma")
    return {
        "task": request.task.name,
        "solver": request.task.solver,
        "prior": request.prior,
        "dataset": request.task.dataset,
        **row,
        **{n: options[n] for n in (*own, *shared, *parts)},
        "speed": request.speed,
        "cfg": request.cfg,
        "prompt": request.prompt,
        "operator": request.task.operator.name,
        "operator_settings": dict(request.task.operator.settings),
        "sigma": request.sigma,
        "sigma_range": [-1, 1],
        "noise_in_hole": request.task.noise_in_hole,
        "size": setup.size,
        "resize": request.resize,
        "composite": request.composite,
        "seed": request.seed,
        "samples": request.samples,
        "inputs": [str(p) for p in request.inputs] or str(request.measurement or "bundled"),
        "mask": request.mask and str(request.mask),
        "kernel": request.kernel and str(request.kernel),
        "device": request.device,
        "prediction": setup.prior.prediction,
        "precision": request.precision,
        **({} if request.tf32 is None else {"tf32": request.tf32}),
        "prior_sha256": weights_hash(setup.prior),
    }


def weights_hash(prior: Prior) -> str:
    """A hash of the prior's tensors, the same wherever they were read from."""
    tensors = (t.detach().cpu().contiguous() for network in prior.networks() for t in network.state_dict().values())
    return sha256(t.flatten().view(torch.uint8).numpy().tobytes() for t in tensors)
