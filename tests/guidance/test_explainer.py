"""The explainer: what it records equals the passes, and it changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from operators import GaussianBlur, GaussianNoise
from pag_inverse import DAPS, DPS, PSLD, Explainer, GuidedModel, NoGuidance, PerturbedAttentionGuidance, sample
from pag_inverse.generation.two_models import TwoModelGuidance
from pag_inverse.guidance import GuidedEps
from pag_inverse.priors import LatentPrior, PixelPrior, Prior
from pag_inverse.problem import InverseProblem
from pag_inverse.reports.explanation import Explanation, spread
from pag_inverse.restoration.loop import ChainResult, run_chain
from pag_inverse.restoration.tiling import TiledModel, Tiling
from pag_inverse.schedule import Schedule
from pag_inverse.solvers import Solver

LAYERS = ["mid_block.attentions.0"]
PAG = PerturbedAttentionGuidance(2.0, LAYERS)


def restored(
    prior: Prior, solver: Solver, explain: Explainer | None, side: int = 32, guidance: object = PAG, steps: int = 4
) -> ChainResult:
    operator = GaussianBlur((3, side, side), 9, 1.5)
    y = torch.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side)
    problem = InverseProblem(y, operator, GaussianNoise(0.05))
    return run_chain(problem, GuidedModel(prior, guidance), solver, steps, [5, 6], explain=explain)


@pytest.mark.parametrize("solver", [DPS(1.0), DAPS()])
def test_a_restoration_is_the_same_bit_for_bit(pixel: PixelPrior, solver: Solver) -> None:
    explainer = Explainer(recorded=3)
    with_it, without = restored(pixel, solver, explainer), restored(pixel, solver, None)
    assert torch.equal(with_it.x, without.x)
    assert len(explainer.explanations) == 2
    for found in explainer.explanations:
        assert [step.step for step in found.shown] == [1, 3, 4] and len(found.signal) == 4
        assert found.timesteps == sorted(found.timesteps, reverse=True)


def test_the_pictures_are_x0_of_each_eps(pixel: PixelPrior) -> None:
    torch.manual_seed(1)
    x_t = 0.5 * torch.randn(1, 3, 32, 32)
    schedule = Schedule.ddpm(pixel.betas, 10)
    explainer = Explainer(recorded=1)
    recording = explainer.start(GuidedModel(pixel, PAG), 1, 1, lambda x: x)
    eps = recording.model(x_t, int(schedule.timesteps[2]))
    recording.step(1, schedule, 2)
    (shown,) = explainer.explanations[0].shown
    eps_hat = eps.unguided - (eps.guided - eps.unguided) / 2.0  # Eq. 10 solved for eps_hat
    for picture, e in ((shown.x0, eps.unguided), (shown.guided, eps.guided), (shown.perturbed, eps_hat)):
        expected = (schedule.predict_x0(x_t, e, 2)[0].detach().clamp(-1, 1) + 1) * 127.5
        assert np.abs(picture - expected.permute(1, 2, 0).numpy()).max() < 0.51
    signal = (eps.guided - eps.unguided)[0].abs().detach()
    assert np.allclose(shown.signal, signal.mean(dim=0), atol=1e-6)
    assert explainer.explanations[0].signal == pytest.approx([float(signal.mean())], rel=1e-4)


def test_no_pass_is_made_for_it(pixel: PixelPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    predict = PixelPrior.predict

    def counted(self: PixelPrior, *given: object, **named: object) -> object:
        calls.append(named.get("network"))
        return predict(self, *given, **named)

    monkeypatch.setattr(PixelPrior, "predict", counted)
    restored(pixel, DPS(1.0), None)
    alone, calls[:] = len(calls), []
    restored(pixel, DPS(1.0), Explainer())
    assert len(calls) == alone


def test_a_latent_is_decoded_and_a_canvas_is_cropped(latent: LatentPrior) -> None:
    explainer = Explainer(recorded=2, of=[1])
    restored(latent, PSLD(eta=0.1, gamma=0.0), explainer, side=33)
    (found,) = explainer.explanations
    step = found.shown[0]
    assert step.x0.shape == step.state.shape == step.guided.shape == (33, 33, 3)
    assert step.signal is not None and step.signal.shape == (33, 33) and found.guided


def test_tiles_are_blended(pixel: PixelPrior) -> None:
    """The blended eps_hat solves Eq. 10, which is linear; without a watch it is not blended."""
    seen: list[GuidedEps] = []
    model = TiledModel(pixel, PAG, Tiling(16, 4), watch=lambda z, t, eps: seen.append(eps))
    z = torch.linspace(-1, 1, 3 * 40 * 28).reshape(1, 3, 40, 28)
    eps = model(z, 300)
    assert seen == [eps] and eps.perturbed is not None and eps.signal is not None
    assert torch.allclose(eps.guided, eps.unguided + eps.signal, atol=1e-5)
    assert torch.allclose(eps.signal, 2.0 * (eps.unguided - eps.perturbed), atol=1e-5)
    plain = TiledModel(pixel, PAG, Tiling(16, 4))(z, 300)
    assert torch.equal(plain.guided, eps.guided) and plain.perturbed is None


def test_two_models_keep_what_the_first_perturbed(pixel: PixelPrior) -> None:
    z = torch.ones(1, 3, 32, 32)
    eps = TwoModelGuidance(PAG, pixel, 2.0)(pixel, z, 500)
    assert eps.perturbed is not None and torch.equal(eps.perturbed, PAG(pixel, z, 500).perturbed)


def test_without_guidance_there_is_no_map(pixel: PixelPrior) -> None:
    explainer = Explainer(recorded=2)
    restored(pixel, DPS(1.0), explainer, guidance=NoGuidance())
    found = explainer.explanations[0]
    assert not found.guided and found.shown[0].perturbed is None and found.signal == [0.0] * 4
    assert figure_size(found)[1] < 3 * 128  # two rows of tiles and no curve


def test_outside_the_interval_the_signal_is_zero(pixel: PixelPrior) -> None:
    explainer = Explainer()
    guidance = PerturbedAttentionGuidance(2.0, LAYERS, interval=(0.0, 0.5))
    restored(pixel, DPS(1.0), explainer, guidance=guidance)
    found = explainer.explanations[0]
    assert [value > 0 for value in found.signal] == [t <= 500 for t in found.timesteps]
    assert figure_size(found)[0] > 0  # grey tiles where there is nothing


def figure_size(found: Explanation) -> tuple[int, int]:
    figure = found.strip()
    return tuple(int(v) for v in figure.get_size_inches() * figure.dpi)


def test_samples_are_explained(pixel: PixelPrior, tmp_path: Path) -> None:
    explainer = Explainer(recorded=3)
    options = {"guidance": PAG, "steps": 4, "size": 32, "batch_size": 1}
    found = sample(pixel, 2, **options, explain=explainer)
    assert torch.equal(found.x, sample(pixel, 2, **options).x)
    assert len(explainer.explanations) == 2 and explainer.explanations[1].shown[-1].step == 4
    explanation = explainer.explanations[0]
    for name, kind in (("a.png", "PNG"), ("a.gif", "GIF"), ("a.webp", "WEBP")):
        explanation.save(tmp_path / name)
        with PIL.Image.open(tmp_path / name) as image:
            assert image.format == kind and getattr(image, "n_frames", 1) == (1 if kind == "PNG" else 3)
    explanation.save(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match=r"unknown format 'tiff' of an explanation; there are png, pdf, gif, webp"):
        explanation.save(tmp_path / "a.tiff")


def test_steps_are_spread_from_the_first_to_the_last() -> None:
    assert spread(10, 4) == [0, 3, 6, 9] and spread(3, 8) == [0, 1, 2] and spread(5, 1) == [4]
    with pytest.raises(ValueError, match="no step was recorded"):
        Explanation().strip()
    with pytest.raises(ValueError, match="recorded"):
        Explainer(recorded=0)
