"""What the benchmark holds against each other: our step, the step written the published way, the parts of the bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from operators import make_noise, make_operator
from pag_inverse.runtime.allocation import KEPT_PIXELS, allow_huge_pages, keep_freed_memory, return_freed_memory
from pag_inverse.guidance.perturbation import perturbed_twin
from pag_inverse.benchmark.case import ARCHITECTURES, Case
from pag_inverse.settings.files import load_task
from pag_inverse.guidance.guidance import PerturbedAttentionGuidance
from pag_inverse.priors import LatentPrior, PixelPrior, Prior, load_prior
from pag_inverse.priors.precision import check_compiler, place, precision_dtype, spare_memory
from pag_inverse.schedule import BETAS
from pag_inverse.settings.tables import Hyperparameters
from pag_inverse.solvers import make_solver
from pag_inverse.runtime.streams import batch_draw, operator_rng

STEPS = 1000
PLACE = 500  # of the chain; a step costs the same anywhere
DATASETS = {"imagenet-architecture": "imagenet", "pixel": "natural", "latent": "natural"}


def make_prior(case: Case, precision: str) -> Prior:
    """The embedded prior, or a published architecture with random weights."""
    if case.prior not in ARCHITECTURES:
        return load_prior(
            case.prior,
            device=case.device,
            precision=precision,
            compile=case.compile,
            channels_last=case.channels_last,
            low_memory=case.low_memory,
        )
    if case.compile:
        check_compiler(case.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = random_prior(case)
    prior.compiled = case.compile
    for network in prior.networks():
        place(network, case.device, precision_dtype(precision), case.channels_last)
        if case.low_memory:
            spare_memory(network)
    return prior


def random_prior(case: Case) -> Prior:
    from pag_inverse.training import networks as architectures

    if case.prior == "sd15-architecture":
        unet, vae = architectures.stable_diffusion_unet(), architectures.stable_diffusion_vae()
        empty = torch.randn(1, 77, 768)
        return LatentPrior(unet, vae, BETAS["scaled_linear"](), empty=empty, name=case.prior, image_size=512)
    adm = architectures.ffhq_adm if case.prior == "ffhq-architecture" else architectures.imagenet_adm
    return PixelPrior(adm(), BETAS["linear"](), name=case.prior)


class Bench:
    """The objects of a case, and its steps and parts as functions of nothing.

    `published`: only what the reference needs, a batch of one in float32.
    """

    def __init__(self, case: Case, published: bool = False) -> None:
        self.case = replace(case, batch=1, precision="float32", compile=False, channels_last=False, low_memory=False) \
            if published else case  # fmt: skip
        self._keeps = case.device == "cpu" and not case.low_memory and case.size**2 <= KEPT_PIXELS
        case = self.case
        self.prior = make_prior(case, case.precision)
        dataset = DATASETS.get(case.prior, "ffhq")
        task = load_task(case.task, dataset, case.solver, image_size=case.size, pag=True)
        assert task.hyperparameters is not None
        self.row: Hyperparameters = task.hyperparameters
        self.layers = self.prior.resolve_layers(self.row.layers)
        shape = (3, case.size, case.size)
        rngs = [operator_rng(0, str(b)) for b in range(case.batch)]
        operator = make_operator(task.operator.name, shape, task.operator.settings, rngs)
        self.operator = operator.to(case.device, torch.float32)
        self.noise = make_noise("gaussian", task.sigma)
        self.solver = make_solver(case.solver, self.row)
        self.schedule = self.solver.schedule(self.prior, STEPS)
        self.guidance = PerturbedAttentionGuidance(self.row.s, self.layers)
        self.t = int(self.schedule.timesteps[PLACE])
        self.draw = batch_draw(list(range(case.batch)), torch.device(case.device))
        self.x = self.draw((case.batch, *shape)).clamp(-1, 1)
        self.y = self.noise(self.operator.forward(self.x), self.draw)
        self.z = self.draw((case.batch, *self.prior.state_shape(shape)))
        self._reference: Bench | None = self if published else None

    def ours(self) -> Tensor:
        """One step of the solver, as `solve` runs it."""
        return self.solver.step(
            self.z, PLACE, self.schedule, self.y, self.noise, self.operator, self.prior, self.guidance, self.draw
        ).z

    def parts(self) -> dict[str, Callable[[], object]]:
        """What is timed in turns; the bound is the sum of its parts."""
        unet, (whole, prefix) = self.prior.unet, self.prior.prepare(self.layers)
        with torch.no_grad():
            prefix.recording = True
            self._eps(unet)
            prefix.recording = False
            recorded = dict(prefix.recorded)

        def suffix() -> None:
            prefix.recorded.update(recorded)
            with torch.no_grad():
                self._eps(prefix.twin)

        found: dict[str, Callable[[], object]] = {
            "ours": self.ours,
            "forward and backward": lambda: through(lambda z: self._eps(unet, z), self.z),
            "perturbed suffix": suffix,
            "whole perturbed pass": torch.no_grad()(lambda: self._eps(whole)),
            "last decode": torch.no_grad()(lambda: self.prior.decode(self.z)),
        }
        if self.case.solver == "psld":
            found |= {
                "decode": lambda: through(self.prior.decode, self.z),
                "encode": lambda: through(lambda x: self.prior.encode(x, self.draw), self.x),
                "operator": lambda: through(self._measure_and_glue, self.x),
            }
        if self.case.reference:
            found["published"] = self.reference().published
            if self._keeps:  # get the memory again that the reference gave back: no part of the figures
                found["after the reference"] = self.ours
        return found

    def facts(self) -> dict[str, Any]:
        """Operations of the perturbed pass, counted: whole, and from its first perturbed layer on."""
        from torch.utils.flop_counter import FlopCounterMode

        counts, parts = {}, self.parts()
        for name in ("perturbed suffix", "whole perturbed pass"):
            with FlopCounterMode(display=False) as counter:
                parts[name]()
            counts[name] = counter.get_total_flops()
        device = torch.cuda.get_device_name() if self.case.device.startswith("cuda") else "processor"
        return {"flops": counts, "device_name": device}

    def reference(self) -> Bench:
        if self._reference is None:
            same = self.case.batch == 1 and self.case.precision == "float32" and not (
                self.case.compile or self.case.channels_last or self.case.low_memory
            )  # fmt: skip
            self._reference = self if same else Bench(self.case, published=True)
        return self._reference

    def _eps(self, network: Any, z: Tensor | None = None) -> Tensor:
        state = self.z if z is None else z
        return self.prior._split(self.prior._run(network, state, self.t, None), state, self.t).eps

    def _measure_and_glue(self, x: Tensor) -> Tensor:
        return torch.cat([self.operator.forward(x).flatten(1), self.operator.project(x, self.y).flatten(1)], dim=1)

    def published(self) -> Tensor:
        """One step as the published programs write it: two passes with a graph, no parameter frozen, and memory
        comes and goes as the C library and the system do it unless told otherwise."""
        keep = self._keeps and return_freed_memory()
        allow_huge_pages(False)
        for network in self.prior.networks():
            network.requires_grad_(True)
        try:
            return self._published()
        finally:
            for network in self.prior.networks():
                network.requires_grad_(False)
            allow_huge_pages(True)
            if keep:
                keep_freed_memory()

    def _published(self) -> Tensor:
        if not hasattr(self, "_twin"):
            self._twin = perturbed_twin(self.prior.unet, self.layers)
        z = self.z.detach().requires_grad_(True)
        output = self.prior._split(self.prior._run(self.prior.unet, z, self.t, None), z, self.t)
        eps, eps_hat = output.eps, self._eps(self._twin, z)
        guided = eps + self.row.s * (eps - eps_hat)
        z0 = self.schedule.predict_x0(z, eps, PLACE)
        if self.case.solver == "dps":
            x0_guided = self.schedule.predict_x0(z, guided, PLACE).clamp(-1, 1)
            f = 0.0 if output.variance_fraction is None else output.variance_fraction
            moved = self.schedule.ddpm_step(z, x0_guided, PLACE, f, self.draw(tuple(z.shape)))
            loss = torch.linalg.vector_norm(self.y - self.operator.forward(z0.clamp(-1, 1)))
            return (moved - self.row.eta * torch.autograd.grad(loss, z)[0]).detach()
        moved = self.schedule.ddim_step(self.schedule.predict_x0(z, guided, PLACE), guided, PLACE, 0.0, None)
        x0 = self.prior.decode(z0)
        prediction = self.noise(self.operator.forward(x0), self.draw)
        glued = self.prior.encode(self.operator.project(x0, self.y), self.draw)
        gamma = self.row.gamma or 0.0
        loss = self.row.eta * torch.linalg.vector_norm(self.y - prediction)
        loss = loss + gamma * torch.linalg.vector_norm(z0 - glued)
        return (moved - torch.autograd.grad(loss, z)[0]).detach()


def through(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Forward, and backward to the input."""
    leaf = x.detach().requires_grad_(True)
    output = function(leaf)
    return torch.autograd.grad(output, leaf, torch.ones_like(output))[0]
