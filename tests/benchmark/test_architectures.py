"""The published networks without their weights."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pag_inverse.benchmark import architectures
from pag_inverse.benchmark.run import BenchmarkRequest, cases
from pag_inverse.guidance.prefix import PassPair, completed_before
from pag_inverse.settings import load_task

PARAMETERS = {"ffhq_adm": 93563910, "imagenet_adm": 552814086, "stable_diffusion_unet": 859520964,
              "stable_diffusion_vae": 83653863}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_architectures_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        network = getattr(architectures, name)()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "share"), [("ffhq", 0.20), ("imagenet", 0.25), ("sd15", 0.28)])
def test_the_shared_prefix_saves_what_was_counted(name: str, share: float) -> None:
    """The operations before the first perturbed layer, as a share of the pass; on tensors without numbers."""
    (case,) = cases(BenchmarkRequest(priors=(f"{name}-architecture",)))
    task = load_task(case.task, case.dataset, case.solver, image_size=case.size, pag=True)
    with torch.device("meta"):
        prior = architectures.random_prior(name, "meta")
        z = torch.zeros(1, *prior.state_shape((3, case.size, case.size)))
    layers = prior.resolve_layers(task.hyperparameters.layers)
    pair = PassPair(prior, layers, completed_before(prior, layers))
    counts = []
    with torch.no_grad():
        for half in (pair.record, pair.finish):
            with FlopCounterMode(display=False) as counter:
                half(prior, z, 0, None)
            counts.append(counter.get_total_flops())
    assert 1 - counts[1] / counts[0] >= 0.9 * share
