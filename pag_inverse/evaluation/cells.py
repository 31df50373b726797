"""The cells of an evaluation with their objects: a task, a solver and a guidance that can run here."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pag_inverse.restoration.subjects import Subject
from pag_inverse.evaluation.plans import CellPlan, Plan
from pag_inverse.storage.records import check_writable, sha256
from pag_inverse.restoration.request import Request
from pag_inverse.restoration.recipe import Setup, build_operator, describe, request_prior, settle_memory, settled, wire
from pag_inverse.priors import Prior
from pag_inverse.storage.saved import SavedCell
from pag_inverse.runtime.processes import Processes
from pag_inverse.solvers import make_solver


@dataclass(frozen=True)
class Ready:
    """A cell with its objects: nothing about it is left to check."""

    request: Request
    setup: Setup
    saved: SavedCell
    settings: dict[str, Any]
    kind: str
    metric_size: int
    images: dict[str, Path]

    def place(self, what: str, *keys: object) -> Path:
        """A folder that cells share where these keys are the same."""
        digest = hashlib.sha256(json.dumps([str(key) for key in keys]).encode()).hexdigest()[:8]
        return self.saved.root / what / digest

    def truths(self) -> Path:
        return self.place("truths", self.settings["root"], self.metric_size, self.request.resize)

    def measurements(self) -> Path:
        names = ("operator_settings", "sigma", "noise_in_hole", "size", "resize", "seed", "root")
        return self.place(f"measurements/{self.request.task.name}", *(self.settings[n] for n in names))


def prepare_cells(plan: Plan, processes: Processes, args: argparse.Namespace) -> list[Ready]:
    """Load the priors and make sure that every cell can run here; nothing is written."""
    priors: dict[str, Prior] = {}
    ready = [prepare_cell(plan, cell, processes, priors) for cell in plan.cells]
    check_writable(plan.output)
    for cell in ready:
        if not args.overwrite:
            cell.saved.check(cell.settings)
    return ready


def prepare_cell(plan: Plan, cell: CellPlan, processes: Processes, priors: dict[str, Prior]) -> Ready:
    device = f"cuda:{processes.local}" if cell.request.device == "cuda" else cell.request.device
    request = replace(cell.request, device=device)
    if request.prior not in priors:
        priors[request.prior] = request_prior(request)
    setup = wire(request, priors[request.prior])
    example = build_operator(request, setup, [subject_of("example", "", np.zeros((3, 1, 1), np.float32))])
    setup.prior.state_shape(example.in_shape)
    request = settled(request, setup.prior, example)
    settle_memory(request, example)
    make_solver(request.task.solver, request.row).check(example)
    metric_size = min(plan.metric_size or setup.size, setup.size)
    settings = {
        **describe(request, setup),
        **plan.source,
        "device": cell.request.device.partition(":")[0],
        "metric_size": metric_size,
        "root": root_of(plan),
    }
    settings.pop("inputs")
    saved = SavedCell(plan.output.absolute() / cell.name)
    return Ready(request, setup, saved, json.loads(json.dumps(settings)), plan.kind, metric_size, plan.images)


def root_of(plan: Plan) -> str:
    """What tells this folder of pictures from another one, wherever it is mounted: its first picture."""
    return sha256(next(iter(plan.images.values())).read_bytes())[:16]


def subject_of(name: str, source: str, image: Any) -> Subject:
    return Subject(name, source, image, "")
