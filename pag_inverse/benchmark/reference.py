"""The step as the published programs write it: two passes with a graph, no parameter frozen, one image, float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pag_inverse.benchmark.case import Case
from pag_inverse.benchmark.steps import PLACE, Bench
from pag_inverse.guidance.perturbation import perturbed_twin
from pag_inverse.runtime.allocation import is_kept, system_defaults
from pag_inverse.solvers import DPS, PSLD, Solver, solver_class


class Reference:
    """The published step of a case."""

    def __init__(self, bench: Bench, kept: bool = False) -> None:
        """`kept`: whether this process keeps freed memory between the steps of others."""
        self.bench, self.kept = bench, kept
        self.twin = perturbed_twin(bench.prior.unet, bench.layers)

    @classmethod
    def beside(cls, bench: Bench) -> Reference:
        """The reference of a bench in one process, on the same networks where the case is the published one already."""
        case, published = bench.case, published_case(bench.case)
        kept = case.device == "cpu" and is_kept(case.size**2, case.low_memory)
        return cls(bench if case == published else Bench(published), kept)

    def step(self) -> Tensor:
        """One step; memory is returned and paged as the system does it by default. The next state."""
        networks = self.bench.prior.networks()
        with system_defaults(self.kept):
            for network in networks:
                network.requires_grad_(True)
            try:
                return PUBLISHED[type(self.bench.solver)](self)
            finally:
                for network in networks:
                    network.requires_grad_(False)

    def pixel_step(self) -> Tensor:
        """A step of the published DPS program, with the PAG of Eq. 10."""
        bench, schedule = self.bench, self.bench.schedule
        z, eps, guided, fraction = self._passes()
        x0 = schedule.predict_x0(z, eps, PLACE).clamp(-1, 1)
        x0_guided = schedule.predict_x0(z, guided, PLACE).clamp(-1, 1)
        f = 0.0 if fraction is None else fraction
        moved = schedule.ddpm_step(z, x0_guided, PLACE, f, bench.draw(tuple(z.shape)))
        loss = torch.linalg.vector_norm(bench.problem.y - bench.problem.operator.forward(x0))
        eta = bench.solver.options()["eta"]
        return (moved - eta * torch.autograd.grad(loss, z)[0]).detach()

    def latent_step(self) -> Tensor:
        """A step of the published PSLD + PAG program."""
        bench, schedule, problem = self.bench, self.bench.schedule, self.bench.problem
        z, eps, guided, _ = self._passes()
        z0 = schedule.predict_x0(z, eps, PLACE)
        moved = schedule.ddim_step(schedule.predict_x0(z, guided, PLACE), guided, PLACE, 0.0, None)
        x0 = bench.prior.decode(z0)
        prediction = problem.noise(problem.operator.forward(x0), bench.draw)
        glued = bench.prior.encode(problem.operator.project(x0, problem.y), bench.draw)
        options = bench.solver.options()
        loss = options["eta"] * torch.linalg.vector_norm(problem.y - prediction)
        loss = loss + options["gamma"] * torch.linalg.vector_norm(z0 - glued)
        return (moved - torch.autograd.grad(loss, z)[0]).detach()

    def _passes(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The state, eps, the guided eps, and the learned variance; both passes have a graph."""
        bench = self.bench
        z = bench.z.detach().requires_grad_(True)
        prediction = bench.prior.predict(z, bench.t)
        eps_hat = bench.prior.predict(z, bench.t, network=self.twin).eps
        guided = prediction.eps + bench.row.s * (prediction.eps - eps_hat)
        return z, prediction.eps, guided, prediction.variance_fraction


PUBLISHED: dict[type[Solver], Callable[[Reference], Tensor]] = {DPS: Reference.pixel_step, PSLD: Reference.latent_step}


def has_reference(solver: str) -> bool:
    """Whether a solver has a published program to be held against."""
    return solver_class(solver) in PUBLISHED


def published_case(case: Case) -> Case:
    """The case as the published programs run it: one image, float32, without our options."""
    return replace(case, batch=1, precision="float32", compile=False, channels_last=False, low_memory=False)
