"""The iterations of sampling that are measured: as many passes as each guidance needs."""

from __future__ import annotations

import torch

from pag_inverse import LatentPrior, Prior
from pag_inverse.benchmark import sampling
from pag_inverse.benchmark.case import GUIDANCES, Case


def test_the_passes_of_each_guidance(tiny_sd: LatentPrior, monkeypatch) -> None:
    """No guidance has one, CFG and PAG two, both three (Eq. 14); each moves the state elsewhere."""
    monkeypatch.setattr(sampling, "make_prior", lambda case: tiny_sd)
    case = Case("sd", "psld", "ffhq", "gaussian_deblur", 128, 1, "float32", "cpu", 1, 1, False, False, False, False)
    calls: list[int] = []
    whole = Prior.predict

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return whole(*args, **kwargs)  # type: ignore[arg-type]

    parts = sampling.Sampling(case).parts(GUIDANCES)
    for part in parts.values():
        part()  # makes the perturbed networks
    monkeypatch.setattr(Prior, "predict", counted)
    passes, states = {}, []
    for name, part in parts.items():
        calls.clear()
        states.append(part())
        passes[name] = len(calls)
    assert passes == {"none": 1, "cfg": 2, "pag": 2, "cfg_pag": 3, "seg": 2}
    assert all(not torch.equal(a, b) for n, a in enumerate(states) for b in states[:n])
