"""The part of the solve command that computes: wire the objects, restore batch by batch, write what came out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from operators import Noise, Operator, make_noise, make_operator
from pag_inverse.allocation import keep_freed_memory
from pag_inverse.batching import largest_batch, split_where_full
from pag_inverse.cli.measurements import Subject, own_operator, read_subjects
from pag_inverse.cli.picture_side import picture_side
from pag_inverse.cli.records import RunFolder, check_writable, sha256
from pag_inverse.cli.request import Request
from pag_inverse.cli.results import Gathered, summarise, write
from pag_inverse.config import operator_size
from pag_inverse.guidance import Guidance, NoGuidance, PerturbedAttentionGuidance
from pag_inverse.priors import LatentPrior, Prior, load_prior
from pag_inverse.priors.load import prompt_of
from pag_inverse.rescaling import rescaled
from pag_inverse.restoration import solve
from pag_inverse.solvers import StepOutput, make_solver
from pag_inverse.streams import batch_draw, operator_rng, stream_seed


@dataclass
class Setup:
    """The objects of a run."""

    prior: Prior
    guidance: Guidance
    noise: Noise
    size: int


def list_layers(request: Request) -> int:
    prior = request_prior(request)
    rows = [("checkpoint", "diffusers"), *((layer.checkpoint, layer.diffusers) for layer in prior.layers())]
    width = max(len(a) for a, _ in rows)
    for ours, theirs in rows:
        print(f"{ours:{width}}  {theirs}")
    return 0


def restore(request: Request) -> int:
    """Check everything that can be checked, then restore; 1 if an image left the finite numbers."""
    setup = wire(request)
    subjects = read_subjects(request, setup.size)
    example = build_operator(request, setup, subjects[:1])
    setup.prior.state_shape(example.in_shape)
    request = settled(request, setup.prior, example)
    make_solver(request.task.solver, request.row).check(example)
    settings = describe(request, setup)
    folder = RunFolder(request.output, settings, request.overwrite)
    check_writable(request.output)
    print("\n".join(f"{key:14} {value}" for key, value in settings.items()), file=sys.stderr)
    if request.dry_run:
        return 0
    folder.start()
    left = [subject for subject in subjects if subject.name not in folder.images]
    if len(left) < len(subjects):
        print(f"{len(subjects) - len(left)} of {len(subjects)} already finished", file=sys.stderr)
    return run_batches(request, setup, folder, left)


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


def request_prior(request: Request) -> Prior:
    if request.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {request.device}: this machine has no usable GPU; there is cpu")
    if request.device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps: not on this machine; there is cpu")
    allow_tf32(request.tf32)
    if request.device == "cpu" and not request.low_memory:
        keep_freed_memory()
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
        return images * operator.measured(images)
    seeds = [stream_seed(request.seed, subject.name, "measurement") for subject in subjects]
    y = setup.noise(operator.forward(images), batch_draw(seeds, request.device))
    return y if request.task.noise_in_hole else y * operator.measured(y)


def settle_batch(request: Request, setup: Setup, subject: Subject, limit: int, processes: int = 1) -> Request:
    """The request with the number of images that fit where that is left open, at most `limit`."""
    if request.batch_size is not None:
        return request

    def step(n: int) -> None:
        operator = build_operator(request, setup, [subject] * n)
        y = measure(request, setup, operator, [subject] * n)
        solver, last = make_solver(request.task.solver, request.row), request.row.steps - 1
        draw = batch_draw([0] * n, request.device)
        z = draw((n, *setup.prior.state_shape(operator.in_shape)))
        schedule = solver.schedule(setup.prior, request.row.steps)
        solver.step(z, last, schedule, y, setup.noise, operator, setup.prior, setup.guidance, draw)

    found = largest_batch(step, request.device, limit, processes)
    print(f"batch size     {found}", file=sys.stderr)
    return replace(request, batch_size=found)


def run_batches(request: Request, setup: Setup, folder: RunFolder, subjects: Sequence[Subject]) -> int:
    items = [(subject, sample) for subject in subjects for sample in range(request.samples)]
    if items:
        request = settle_batch(request, setup, subjects[0], len(items))
    size = request.batch_size or 1
    gathered = {subject.name: Gathered() for subject in subjects}
    total, failures = math.ceil(len(items) / size) * request.row.steps, 0
    with tqdm(total=total, unit="step", disable=not items) as bar:
        for batch in batches(items, size):
            split_where_full(lambda part: run_batch(request, setup, part, gathered, bar), batch)
            for subject in finished(batch, gathered, request.samples):
                failures += write(request, folder, subject, gathered.pop(subject.name))
    summarise(folder)
    return 1 if failures else 0


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def run_batch(
    request: Request,
    setup: Setup,
    batch: Sequence[tuple[Subject, int]],
    gathered: dict[str, Gathered],
    bar: Any,
) -> None:
    """Solve one batch and file each sample under its image."""
    subjects = [subject for subject, _ in batch]
    operator = build_operator(request, setup, subjects)
    y = measure(request, setup, operator, subjects)
    unit = residual_unit(request, operator, y)

    def show(done: int, steps: int, output: StepOutput) -> None:
        bar.update()
        if output.x0 is not None:
            bar.set_postfix_str(f"residual {float((output.residual / unit).mean()):.2f}")

    started = time.monotonic()
    seeds = [stream_seed(request.seed, subject.name, "sampling", sample) for subject, sample in batch]
    result = solve(
        y,
        operator,
        setup.prior,
        make_solver(request.task.solver, request.row),
        setup.guidance,
        noise=setup.noise,
        steps=request.row.steps,
        seeds=seeds,
        callback=show,
    )
    seconds = (time.monotonic() - started) / len(batch)
    x = operator.project(result.x, y * operator.measured(y)) if request.composite == "measurement" else result.x
    for b, (subject, sample) in enumerate(batch):
        kept = gathered[subject.name]
        kept.samples[sample], kept.y, kept.seconds = x[b].cpu(), y[b].cpu(), kept.seconds + seconds
        kept.residuals[sample] = (result.residuals[b] / unit[b]).tolist()
        kept.enlarged = operator.enlarge(y)[b].cpu()
        if b in result.failed:
            kept.failed[sample] = result.failed[b]


def residual_unit(request: Request, operator: Operator, y: Tensor) -> Tensor:
    """sigma sqrt(m), what ||y - A x|| is for the truth; sqrt(m) alone where sigma is not known or 0."""
    measured = operator.measured(y).flatten(1).sum(dim=1).sqrt()
    return measured * request.sigma if request.sigma else measured


def finished(batch: Sequence[tuple[Subject, int]], gathered: dict[str, Gathered], samples: int) -> list[Subject]:
    subjects = {subject.name: subject for subject, _ in batch}
    return [s for name, s in subjects.items() if len(gathered[name].samples) == samples]


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
