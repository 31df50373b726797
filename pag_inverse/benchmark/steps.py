"""The objects of a case: our step, and the parts that bound it, as functions without arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators import make_operator
from pag_inverse.benchmark.architectures import random_prior
from pag_inverse.benchmark.case import ARCHITECTURES, Case
from pag_inverse.guidance import GuidedModel, PerturbedAttentionGuidance
from pag_inverse.guidance.perturbation import perturbed_twin
from pag_inverse.guidance.prefix import PassPair, completed_before
from pag_inverse.priors import LatentPrior, Prior, load_prior
from pag_inverse.priors.precision import check_compiler, place, precision_dtype, spare_memory
from pag_inverse.problem import InverseProblem, simulate, task_noise
from pag_inverse.runtime.streams import batch_draw, operator_rng
from pag_inverse.settings import Hyperparameters, load_task
from pag_inverse.solvers import Solver, State, make_solver, solver_class

STEPS = 1000
PLACE = 500  # of the chain; a step costs the same anywhere
Part = Callable[[], object]


def make_prior(case: Case) -> Prior:
    """The embedded prior, or a published architecture with random weights."""
    if case.prior not in ARCHITECTURES:
        return load_prior(
            case.prior,
            device=case.device,
            precision=case.precision,
            compile=case.compile,
            channels_last=case.channels_last,
            low_memory=case.low_memory,
        )
    if case.compile:
        check_compiler(case.device)
    prior = random_prior(ARCHITECTURES[case.prior], case.device)
    for network in prior.networks():
        place(network, case.device, precision_dtype(case.precision), case.channels_last)
        if case.low_memory:
            spare_memory(network)
    prior.compiled = case.compile
    return prior


def published_solver(name: str, row: Hyperparameters) -> Solver:
    """A solver with a row's step sizes, and for the rest the defaults, which are the published programs' options.

    Other options of a row change what a step does: the published way would not be the same step.
    """
    sizes = solver_class(name).STEP_SIZES
    return make_solver(name, {key: value for key, value in row.options.items() if key in sizes})


class Bench:
    """A case's prior, solver and problem. The picture is noise: a step costs the same whatever it shows."""

    def __init__(self, case: Case) -> None:
        self.case, self.prior = case, make_prior(case)
        task = load_task(case.task, case.dataset, case.solver, image_size=case.size, pag=True)
        assert task.hyperparameters is not None
        self.row: Hyperparameters = task.hyperparameters
        self.layers = self.prior.resolve_layers(self.row.layers)
        self.model = GuidedModel(self.prior, PerturbedAttentionGuidance(self.row.s, self.layers))
        self.solver = published_solver(case.solver, self.row)
        self.schedule = self.solver.schedule(self.prior, STEPS)
        self.t = int(self.schedule.timesteps[PLACE])
        self.draw = batch_draw(list(range(case.batch)), torch.device(case.device))
        shape = (3, case.size, case.size)
        self.x = self.draw((case.batch, *shape)).clamp(-1, 1)
        rngs = [operator_rng(0, str(b)) for b in range(case.batch)]
        operator = make_operator(task.operator.name, shape, task.operator.settings, rngs)
        noise = task_noise(task)
        self.problem: InverseProblem = simulate(self.x, operator.to(case.device, torch.float32), noise, draw=self.draw)
        self.z = self.draw((case.batch, *self.prior.state_shape(shape)))

    def ours(self) -> Tensor:
        """One step of the solver, as `solve` runs it; the next state."""
        return self.solver.step(State(self.z), PLACE, self.problem, self.model, self.schedule, self.draw).z

    def parts(self) -> dict[str, Part]:
        """Our step and its parts, by name; `table.BOUND` names those that no step can do without."""
        pair = PassPair(self.prior, self.layers, completed_before(self.prior, self.layers))
        perturbed = perturbed_twin(self.prior.unet, self.layers)
        whole = torch.compile(perturbed) if self.prior.compiled else perturbed
        with torch.no_grad():
            pair.record(self.prior, self.z, self.t, None)
        found: dict[str, Part] = {
            "ours": self.ours,
            "perturbed suffix": lambda: pair.finish(self.prior, self.z, self.t, None),
            "whole perturbed pass": torch.no_grad()(lambda: self._eps(self.z, whole)),
            "last decode": torch.no_grad()(lambda: self.prior.decode(self.z)),
        }
        if self.solver.backward:
            found["forward and backward"] = lambda: through(self._eps, self.z)
        else:
            found["forward"] = torch.no_grad()(lambda: self._eps(self.z))
        if isinstance(self.prior, LatentPrior):
            found |= {
                "decode": lambda: through(self.prior.decode, self.z),
                "encode": lambda: through(lambda x: self.prior.encode(x, self.draw), self.x),
                "operator": lambda: through(self._measure_and_glue, self.x),
            }
        if self.solver.linear_only:
            found["linear solve"] = self._solve
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

    def _eps(self, z: Tensor, network: Any = None) -> Tensor:
        return self.prior.predict(z, self.t, network=network).eps

    def _solve(self) -> Tensor:
        """The linear solve of a step, with the damping of its place in the chain, and A* of what it gives."""
        operator, abar = self.problem.operator, float(self.schedule.abar[PLACE])
        return operator.pinv(self.problem.y - operator.forward(self.x), self.problem.noise.sigma**2 / (1 - abar))

    def _measure_and_glue(self, x: Tensor) -> Tensor:
        operator, y = self.problem.operator, self.problem.y
        return torch.cat([operator.forward(x).flatten(1), operator.project(x, y).flatten(1)], dim=1)


def through(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Forward, and backward to the input."""
    leaf = x.detach().requires_grad_(True)
    output = function(leaf)
    return torch.autograd.grad(output, leaf, torch.ones_like(output))[0]
