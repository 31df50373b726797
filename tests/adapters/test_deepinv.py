"""Physics of deepinv as operators and problems: the same measurements, exact adjoints, the same noise."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import Blur, GaussianNoise, Identity, Inpainting, NoNoise, SuperResolution

physics = pytest.importorskip("deepinv", reason="deepinv is not installed: pip install '.[deepinv]'").physics

import pag_inverse.adapters as adapters  # noqa: E402
from pag_inverse import DPS, NoGuidance, restore  # noqa: E402
from pag_inverse.adapters import CountsNoise, PhysicsOperator, Reconstructor, physics_operator, physics_problem  # noqa: E402  # noqa: E402

RGB, GREY = (3, 30, 36), (1, 32, 32)
pytestmark = pytest.mark.filterwarnings("ignore")  # deepinv's, of its own deprecated calls


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


KERNEL = uniform(1, 1, 7, 5, seed=1) / 18  # of no symmetry
MASKS = (uniform(2, 1, 30, 36, seed=2) > 0.4).float().expand(2, 3, 30, 36)
SAMPLED = (uniform(32, 32, seed=3) > 0.5).float()


def stacked() -> Any:
    return physics.StackedLinearPhysics(
        [physics.BlurFFT(img_size=RGB, filter=KERNEL), physics.Inpainting(img_size=RGB, mask=MASKS[0])]
    )


LINEAR: dict[str, tuple[Callable[[], Any], tuple[int, int, int]]] = {
    "masks": (lambda: physics.Inpainting(img_size=RGB, mask=MASKS), RGB),
    "demosaicing": (lambda: physics.Demosaicing(img_size=RGB[1:]), RGB),
    "circular blur": (lambda: physics.BlurFFT(img_size=RGB, filter=KERNEL), RGB),
    "kernels": (lambda: physics.Blur(filter=uniform(2, 1, 5, 5) / 12, padding="replicate"), RGB),
    "reduction": (lambda: physics.Downsampling(img_size=RGB, factor=2, filter="gaussian"), RGB),
    "Fourier samples": (lambda: physics.MRI(mask=SAMPLED), (2, 32, 32)),
    "single pixel": (lambda: physics.SinglePixelCamera(m=200, img_size=GREY), GREY),
    "stacked": (stacked, RGB),
    "composed": (
        lambda: physics.Downsampling(img_size=RGB, factor=2) * physics.BlurFFT(img_size=RGB, filter=KERNEL),
        RGB,
    ),
}
every_linear = pytest.mark.parametrize(("make", "img_size"), LINEAR.values(), ids=LINEAR)


def seen_by(img_size: tuple[int, int, int], u: Tensor) -> Tensor:
    """Colours, greys or complex images of a picture (B, C, H, W)."""
    return torch.cat([u, torch.zeros_like(u)], dim=1) if img_size[0] == 2 else u


@every_linear
def test_a_noiseless_measurement_is_met_by_its_image(make: Any, img_size: tuple[int, int, int]) -> None:
    """2 y - A 1 = A (2 u - 1): y of an image in [0, 1] becomes y of the image in [-1, 1]."""
    u = uniform(2, 3 if img_size[0] == 3 else 1, *img_size[1:], seed=4)
    problem = physics_problem(make().A(seen_by(img_size, u)), make(), img_size=img_size)
    x = (2 * u - 1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(problem.operator.forward(x), problem.y, rtol=0, atol=1e-5)
    assert float(problem.residual(torch.zeros_like(x)).min()) > 1  # another image does not meet it


@every_linear
def test_the_adjoint_is_exact(make: Any, img_size: tuple[int, int, int]) -> None:
    operator = physics_operator(make(), img_size, 2).to("cpu", torch.float64)
    x, y = (uniform(2, *shape, seed=5).double() - 0.5 for shape in (operator.in_shape, operator.out_shape))
    left, right = ((a * b).sum() for a, b in ((operator.forward(x), y), (x, operator.adjoint(y))))
    assert float(abs(left - right)) < 1e-10 * float(operator.forward(x).norm() * y.norm())
    x.requires_grad_()
    (slope,) = torch.autograd.grad((operator.forward(x) * y).sum(), x)
    torch.testing.assert_close(slope, operator.adjoint(y), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["masks", "kernels"])
def test_masks_and_kernels_of_each_image_follow_it(name: str) -> None:
    make, img_size = LINEAR[name]
    operator = physics_operator(make(), img_size, 2)
    x = uniform(2, *img_size, seed=6) - 0.5
    both = operator.forward(x)
    swapped = operator.select([1, 0, 1])
    torch.testing.assert_close(swapped.forward(x[[1, 0, 1]]), both[[1, 0, 1]])
    torch.testing.assert_close(operator.select([1]).forward(x[1:]), both[1:])
    torch.testing.assert_close(operator.select([1]).adjoint(both[1:]), operator.adjoint(both)[1:])
    with pytest.raises(ValueError, match="built for 2"):
        operator.forward(x[:1])


def test_entries_that_see_nothing_are_not_measured() -> None:
    problem = physics_problem(physics.MRI(mask=SAMPLED).A(uniform(1, 2, 32, 32)), physics.MRI(mask=SAMPLED))
    measured = problem.mask[0, :2].mean(dim=0).round()
    assert torch.equal(measured, SAMPLED)


def test_operators_of_this_package_stand_in_where_they_give_the_same() -> None:
    reflected = physics.Blur(filter=KERNEL, padding="reflect")
    kinds = [
        (physics.Inpainting(img_size=RGB, mask=MASKS[0]), Inpainting),
        (physics.Denoising(), Identity),
        (reflected, Blur),
        (physics.DownsamplingMatlab(factor=2), SuperResolution),
        (physics.Blur(filter=KERNEL, padding="circular"), PhysicsOperator),
    ]
    assert [type(physics_operator(one, RGB)) for one, _ in kinds] == [kind for _, kind in kinds]
    assert type(physics_operator(physics.Inpainting(img_size=GREY, mask=SAMPLED[None]), GREY)) is Inpainting


def test_a_map_that_is_not_linear_is_doubled() -> None:
    class Gamma(physics.Physics):
        def A(self, u: Tensor, **_: Any) -> Tensor:
            return u**2.2

    u = uniform(2, *RGB)
    problem = physics_problem(Gamma().A(u), Gamma(), img_size=RGB)
    assert not problem.operator.linear
    torch.testing.assert_close(problem.operator.forward(2 * u - 1), 2 * u**2.2)
    assert float(problem.residual(2 * u - 1).max()) < 1e-4


def test_gaussian_noise_is_twice_as_strong_on_our_range() -> None:
    u = uniform(1, 3, 64, 64)
    noisy = physics.BlurFFT(img_size=u.shape[1:], filter=KERNEL, noise_model=physics.GaussianNoise(0.1))
    torch.manual_seed(0)
    problem = physics_problem(noisy(u), noisy)
    assert problem.noise.sigma == pytest.approx(0.2)
    assert float(problem.relative_residual(2 * u - 1)) == pytest.approx(1, abs=0.03)  # 12,288 entries
    assert physics_problem(noisy(u), noisy, sigma=0.05).noise.sigma == pytest.approx(0.1)
    assert isinstance(physics_problem(u, physics.Denoising(physics.ZeroNoise())).noise, NoNoise)


@pytest.mark.parametrize("normalize", [True, False])
def test_photons_are_counted_as_deepinv_counts_them(normalize: bool) -> None:
    """k ~ Poisson(u / gain): the mean of k and its deviation belong to the noise at the truth, in the hole to none."""
    u = torch.full((1, 3, 64, 64), 0.6)
    noise = physics.PoissonNoise(gain=0.05, normalize=normalize)
    hidden = physics.Inpainting(img_size=u.shape[1:], mask=(uniform(1, 64, 64) > 0.5).float(), noise_model=noise)
    torch.manual_seed(0)
    problem = physics_problem(hidden(u), hidden)
    seen = problem.mask > 0
    assert isinstance(problem.noise, CountsNoise)
    expected = problem.operator.forward(2 * u - 1)
    torch.testing.assert_close(problem.noise.photons(expected)[seen], torch.full((int(seen.sum()),), 12.0))
    counts = problem.noise.photons(problem.y)[seen]
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-4)
    assert float(counts.mean()) == pytest.approx(12, abs=0.15)
    spread = ((problem.y - expected) / problem.noise.std(expected))[seen]
    assert float(spread.std()) == pytest.approx(1, abs=0.05)
    drawn = problem.noise(expected, torch.randn)
    assert float(problem.noise.photons(drawn)[seen].mean()) == pytest.approx(12, abs=0.15)


def test_a_grey_measurement_weighs_as_one() -> None:
    """Three equal channels with sqrt(3) times the deviation have the likelihood of the one that was measured."""
    noisy = physics.Denoising(physics.GaussianNoise(0.1))
    y, u = uniform(1, *GREY), uniform(1, *GREY, seed=9)
    problem = physics_problem(y, noisy)
    x = (2 * u - 1).expand(-1, 3, -1, -1)
    once = GaussianNoise(0.2)

    def difference(noise: Any, measured: Tensor, image: Tensor) -> float:
        nll = noise.negative_log_likelihood
        return float((nll(measured, image) - nll(measured, 0 * image)).sum())

    assert difference(problem.noise, problem.y, x) == pytest.approx(difference(once, 2 * y - 1, 2 * u - 1), rel=1e-4)


def test_the_reconstructor_is_restore_on_the_other_range(pixel: Any) -> None:
    noisy = physics.BlurFFT(img_size=(3, 32, 32), filter=KERNEL, noise_model=physics.GaussianNoise(0.05))
    y = noisy(uniform(2, 3, 32, 32))
    model = Reconstructor(pixel, solver=DPS(1.0), guidance=NoGuidance(), steps=3, num_samples=2)
    samples = model.samples(y, noisy)
    assert samples.shape == (2, 2, 3, 32, 32)
    assert 0 <= float(samples.min()) < float(samples.max()) <= 1
    torch.testing.assert_close(model(y, noisy), samples.mean(dim=1))
    alone = torch.cat([model(one[None], noisy) for one in (y[1], y[0])])
    torch.testing.assert_close(alone, model(y, noisy)[[1, 0]], rtol=0, atol=1e-4)
    single = model.samples(y, noisy)[:, 0]
    named = restore(
        physics_problem(y, noisy),
        prior=pixel,
        solver=DPS(1.0),
        guidance=NoGuidance(),
        steps=3,
        names=adapters.reconstructor.names_of(physics_problem(y, noisy).y),
    )
    torch.testing.assert_close(single, (named.x[:, 0] + 1) / 2)


def test_images_of_several_noise_levels_keep_their_places(pixel: Any) -> None:
    noisy = physics.Denoising(physics.GaussianNoise(torch.tensor([0.3, 0.01, 0.3])))
    y = uniform(3, 3, 32, 32)
    model = Reconstructor(pixel, solver="ddnm", guidance=NoGuidance(), steps=3)
    together = model(y, noisy)
    for b, sigma in enumerate((0.3, 0.01, 0.3)):
        own = model(y[b : b + 1], physics.Denoising(physics.GaussianNoise(sigma)))
        torch.testing.assert_close(together[b : b + 1], own, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="one image at a time"):
        physics_problem(y, noisy)


@pytest.mark.parametrize("img_size", [GREY, (2, 32, 32)])
def test_grey_and_complex_pictures_come_back_as_such(pixel: Any, img_size: tuple[int, int, int]) -> None:
    given = physics.MRI(mask=SAMPLED) if img_size[0] == 2 else physics.Denoising()
    y = given(seen_by(img_size, uniform(1, *GREY)))
    found = Reconstructor(pixel, solver="ddnm", guidance=NoGuidance(), steps=2)(y, given)
    assert found.shape == (1, *img_size)
    assert img_size[0] == 1 or float(found[:, 1].abs().max()) == 0


def test_deepinvs_own_test_loop_runs_it(pixel: Any) -> None:
    import deepinv

    noisy = physics.Denoising(physics.GaussianNoise(0.05))
    u = uniform(2, 3, 32, 32)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(u, noisy(u)), batch_size=2)
    model = Reconstructor(pixel, solver="ddnm", guidance=NoGuidance(), steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = deepinv.test(model, data, noisy, device="cpu", verbose=False, show_progress_bar=False)
    expected = deepinv.loss.metric.PSNR()(model(next(iter(data))[1], noisy), u).mean()
    assert found["PSNR"] == pytest.approx(float(expected), abs=1e-3)


def bent() -> Any:
    return physics.LinearPhysics(A=lambda u, **_: u**2, A_adjoint=lambda y, **_: y)


def saturated() -> Any:
    found = physics.Denoising()
    found.sensor_model = lambda y: y.clamp(0, 1)
    return found


@pytest.mark.parametrize(
    ("make", "options", "fault"),
    [
        (lambda: physics.Denoising(physics.UniformNoise(0.1)), {}, "noise is a UniformNoise; it must be ZeroNoise"),
        (saturated, {}, "sensor_model; set it to the identity"),
        (bent, {}, "called linear, but"),
        (lambda: physics.Denoising(), {"img_size": (5, 32, 32)}, "5 channels; priors of pictures take 1, 2 or 3"),
        (lambda: physics.Denoising(), {"img_size": (3, 16, 16)}, r"give img_size=\(C, H, W\)"),
        (lambda: physics.Denoising(physics.GaussianNoise(torch.rand(3))), {}, "3 levels for 2 images"),
        (lambda: physics.Denoising(), {"sigma": -1.0}, "sigma .* is -1"),
        (lambda: physics.Inpainting(img_size=(3, 32, 32), mask=torch.ones(3, 3, 32, 32)), {}, "does not take 2 images"),
    ],
)
def test_what_does_not_fit_is_one_line(make: Any, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        physics_problem(uniform(2, 3, 32, 32), make(), **options)
    assert "\n" not in str(caught.value)


def test_what_is_of_another_kind_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^physics is a str; it must be a deepinv.physics.Physics$"):
        physics_problem(uniform(1, 3, 32, 32), "blur")
    with pytest.raises(ValueError, match=r"^y is a list; it must be a tensor"):
        physics_problem([0.5], physics.Denoising())
    with pytest.raises(ValueError, match="y holds NaN"):
        physics_problem(torch.full((1, 3, 32, 32), torch.nan), physics.Denoising())


def test_the_readme_runs() -> None:
    readme = Path(adapters.__file__).with_name("README.md")
    if not readme.is_file():
        pytest.skip("the README is not beside the installed package")
    snippets = re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, str(readme), "exec", dont_inherit=True), names)
    assert names["restored"].shape == names["y"].shape == (2, 3, 64, 64)
    assert np.isfinite(names["scores"]["PSNR"])
