"""Maps that are not linear: clipping, amplitudes, JPEG; what all of them keep."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch
from scipy.fft import dctn
from torch import Tensor

from operators import Clip, Compose, Crop, GaussianBlur, Identity, Jpeg, Operator, PhaseRetrieval
from operators.jpeg import CHROMINANCE, LUMINANCE, quantisation_table

SHAPE = (3, 21, 35)
CASES: dict[str, Callable[[], Operator]] = {
    "clip": lambda: Clip(SHAPE, 2.0),
    "phase_retrieval": lambda: PhaseRetrieval(SHAPE, 2.0),
    "jpeg": lambda: Jpeg(SHAPE, 30),
    "jpeg_of_full_colour": lambda: Jpeg(SHAPE, 80, "4:4:4"),
    "grey_jpeg": lambda: Jpeg((1, 21, 35), 30),
}
every = pytest.mark.parametrize("build", CASES.values(), ids=CASES)


def images(shape: tuple[int, ...] = SHAPE, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *shape, generator=generator, dtype=torch.float64) * 2 - 1


def photograph(height: int, width: int) -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[100 : 100 + height, 150 : 150 + width])


@every
def test_each_image_by_itself_in_any_precision_and_whatever_the_others_hold(build: Callable[[], Operator]) -> None:
    operator = build()
    x = images(operator.in_shape)
    y = operator.forward(x)
    assert not operator.linear and y.shape == (3, *operator.out_shape) and y.dtype == x.dtype
    assert torch.equal(operator.observation_mask(y), torch.ones_like(y))
    for b in range(3):
        torch.testing.assert_close(operator.select([b]).forward(x[b : b + 1]), y[b : b + 1], rtol=0, atol=1e-12)
    x[1] = float("nan")
    torch.testing.assert_close(operator.forward(x)[[0, 2]], y[[0, 2]], rtol=0, atol=1e-12)
    x = images(operator.in_shape)
    moved = operator.to("cpu", torch.float32).forward(x.float())
    assert moved.dtype == torch.float32 and float((moved - y).abs().mean()) < 1e-3
    assert operator.forward(x.bfloat16()).dtype == torch.bfloat16
    assert operator.enlarge(y).shape == x.shape and bool(torch.isfinite(operator.enlarge(y)).all())
    with pytest.raises(ValueError, match="not linear"):
        operator.adjoint(y)
    with pytest.raises(ValueError, match="not linear"):
        operator.solve(y, 0.1)


@every
def test_no_input_is_changed_and_inference_mode_does_not_matter(build: Callable[[], Operator]) -> None:
    operator = build()
    x = images(operator.in_shape)
    before = x.clone()
    with torch.inference_mode():
        inside = operator.forward(x)
    assert torch.equal(inside, operator.forward(x)) and torch.equal(x, before)


def test_clipping_is_of_light() -> None:
    """Twice the light: black stays black, mid-grey becomes white, and so does all that is brighter."""
    x = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).view(1, 1, 1, 5)
    assert Clip((1, 1, 5), 2.0).forward(x).flatten().tolist() == [-1.0, 0.0, 1.0, 1.0, 1.0]


def test_the_gradient_of_clipping_leads_out_of_it() -> None:
    """A descent from a white image finds what was not clipped."""
    operator, truth = Clip(SHAPE, 2.0), images()
    y, x = operator.forward(truth), torch.ones_like(truth)
    before = (operator.forward(x) - y).norm()
    for _ in range(200):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad((operator.forward(x) - y).square().sum() / 2, x)
        x = (x - 0.1 * gradient).detach()
    assert (operator.forward(x) - y).norm() < 0.02 * before


def test_amplitudes_are_numpys() -> None:
    x = images()
    light = (x.numpy() + 1) / 2
    expected = np.abs(np.fft.fft2(np.pad(light, ((0, 0), (0, 0), (0, 21), (0, 35))), norm="ortho"))
    operator = PhaseRetrieval(SHAPE)
    y = operator.forward(x)
    assert operator.out_shape == (3, 42, 70)
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(y.flatten(1).norm(dim=1), np.linalg.norm(light.reshape(3, -1), axis=1))
    assert PhaseRetrieval((1, 5, 8), 1.25).out_shape == (1, 7, 10)


def test_amplitudes_do_not_tell_an_image_from_the_rotated_one() -> None:
    x = images()
    operator = PhaseRetrieval(SHAPE)
    torch.testing.assert_close(operator.forward(x.flip(-1, -2)), operator.forward(x))
    assert (operator.forward(x.flip(-1)) - operator.forward(x)).abs().max() > 0.01


def test_the_gradient_of_amplitudes() -> None:
    x = images((1, 5, 4), 2).requires_grad_()
    assert torch.autograd.gradcheck(PhaseRetrieval((1, 5, 4)).forward, (x,))


@pytest.mark.parametrize("quality", [10, 30, 75])
@pytest.mark.parametrize(("subsampling", "pillows"), [("4:2:0", -1), ("4:4:4", 0)])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (101, 90), (33, 47)])
def test_jpeg_is_pillows(quality: int, subsampling: str, pillows: int, height: int, width: int) -> None:
    """Within 0.6 grey levels on average: libjpeg rounds its own transforms. Pillow's default is 4:2:0."""
    picture, file = photograph(height, width), io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "JPEG", quality=quality, **({} if pillows < 0 else {"subsampling": 0}))
    expected = np.asarray(PIL.Image.open(file)).astype(float)
    x = torch.from_numpy(picture / 127.5 - 1).permute(2, 0, 1)[None]
    y = Jpeg((3, height, width), quality, subsampling).forward(x)  # type: ignore[arg-type]
    shown = 127.5 * (y[0].permute(1, 2, 0).numpy() + 1)
    np.testing.assert_allclose(shown, shown.round(), rtol=0, atol=1e-9)
    assert np.abs(shown - expected).mean() < 0.6
    assert np.abs(picture - expected).mean() > 1.2  # what compression does is more


@pytest.mark.parametrize("quality", [10, 75])
def test_grey_jpeg_is_pillows(quality: int) -> None:
    picture, file = photograph(60, 47)[..., 0], io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "JPEG", quality=quality)
    y = Jpeg((1, 60, 47), quality).forward(torch.from_numpy(picture / 127.5 - 1)[None, None])
    assert np.abs(127.5 * (y[0, 0].numpy() + 1) - np.asarray(PIL.Image.open(file))).mean() < 0.3


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 95, 100])
def test_the_tables_are_those_that_pillow_writes(quality: int) -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    written = PIL.Image.open(file).quantization  # type: ignore[attr-defined]
    for number, base in enumerate((LUMINANCE, CHROMINANCE)):
        assert quantisation_table(base, quality).flatten().tolist() == list(written[number])


def test_a_jpeg_of_a_jpeg_is_nearly_itself() -> None:
    operator = Jpeg((3, 64, 64), 50, "4:4:4")
    x = torch.from_numpy(photograph(64, 64) / 127.5 - 1).permute(2, 0, 1)[None]
    once = operator.forward(x)
    assert (operator.forward(once) - once).abs().mean() < 0.2 * (once - x).abs().mean()


def test_the_gradient_of_jpeg_is_that_without_rounding() -> None:
    """Brightness goes through; 4:4:4 is the identity; 4:2:0 averages colours over their neighbourhood."""
    x, direction = images().requires_grad_(), images().flip(0)
    (gradient,) = torch.autograd.grad(Jpeg(SHAPE, 30, "4:4:4").forward(x), x, direction)
    torch.testing.assert_close(gradient, direction, rtol=0, atol=1e-12)
    grey = direction[:, :1] * torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype).view(1, 3, 1, 1)
    (gradient,) = torch.autograd.grad(Jpeg(SHAPE, 30).forward(x), x, grey)
    torch.testing.assert_close(gradient, grey, rtol=0, atol=1e-6)  # a grey direction only asks for brightness
    smooth = (x.detach() * 0 + torch.tensor([0.2, -0.1, 0.3], dtype=x.dtype).view(1, 3, 1, 1)).requires_grad_()
    shown = Jpeg(SHAPE, 100).forward(smooth)
    assert (shown - smooth).abs().max() < 2 / 127.5  # a plain colour stays
    (gradient,) = torch.autograd.grad(shown, smooth, direction)
    torch.testing.assert_close(gradient.sum(dim=(2, 3)), direction.sum(dim=(2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("variance", [1e-9, 1e-3, 1e3])
def test_the_posterior_mean_of_rounding(variance: float) -> None:
    """By scipy's DCT: N(coefficient of x, variance) times N(multiple of q, q^2 / 12), within q / 2 of the multiple."""
    operator, generator = Jpeg((1, 16, 24), 10), torch.Generator().manual_seed(1)
    truth, x = (torch.rand(1, 1, 16, 24, generator=generator, dtype=torch.float64) * 1.6 - 0.8 for _ in range(2))
    y = operator.forward(truth)
    mean = operator.posterior_mean(x, y, 0.0, variance)
    for row in range(0, 16, 8):
        for column in range(0, 24, 8):
            block = (0, 0, slice(row, row + 8), slice(column, column + 8))
            table = quantisation_table(LUMINANCE, 10).numpy()
            ours, theirs = (dctn(127.5 * (image[block].numpy() + 1) - 128, norm="ortho") for image in (x, y))
            multiple = np.round(theirs / table) * table
            precision = (1 / (127.5**2 * variance), 12 / table**2)
            expected = (precision[0] * ours + precision[1] * multiple) / sum(precision)
            expected = np.clip(expected, multiple - table / 2, multiple + table / 2)
            found = dctn(127.5 * (mean[block].numpy() + 1) - 128, norm="ortho")
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_the_posterior_mean_in_colour(subsampling: str) -> None:
    """The decoded picture where x says nothing; nearer to the truth than it where x is the truth."""
    operator = Jpeg((3, 51, 38), 10, subsampling)  # type: ignore[arg-type]
    x = torch.from_numpy(photograph(51, 38) / 127.5 - 1).permute(2, 0, 1)[None]
    y = operator.forward(x)
    assert (operator.posterior_mean(0 * x, y, 0.0, 1e6) - y).abs().mean() < 0.3 * (x - y).abs().mean()
    assert (operator.posterior_mean(x, y, 0.0, 1e-9) - x).abs().mean() < 0.1 * (x - y).abs().mean()
    canvas = Compose(operator, Crop((3, 64, 48), (51, 38)))
    wide = torch.nn.functional.pad(0 * x + 0.1, (5, 5, 6, 7), value=0.7)
    met = canvas.posterior_mean(wide, y, 0.0, 0.01)
    assert canvas.has_posterior_mean
    torch.testing.assert_close(canvas.inner.forward(met), operator.posterior_mean(0 * x + 0.1, y, 0.0, 0.01))
    assert torch.equal(met[..., :6, :], wide[..., :6, :]) and torch.equal(met[..., 43:], wide[..., 43:])


@pytest.mark.parametrize("variance", [1e-4, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_the_posterior_mean_of_clipped_light(sigma: float, variance: float) -> None:
    """The integral over z <= 1 of z N(z; x, variance) N(y; A(z), sigma^2), over that without z."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 9).double(), torch.linspace(-1, 1.1, 9).double(), indexing="ij")
    mean = Clip((1, 9, 9), 2.0).posterior_mean(x[None, None], y[None, None], sigma, variance)[0, 0]
    z = torch.cat([x.flatten()[:, None] + variance**0.5 * torch.linspace(-9, 9, 20001), torch.linspace(-1.5, 1, 40001)
                   .expand(81, -1)], dim=1).double().clamp(max=1).sort(dim=1).values  # fmt: skip
    shown = (2 * (z + 1) - 1).clamp(max=1)
    log_weight = -((z - x.flatten()[:, None]) ** 2) / (2 * variance) - (y.flatten()[:, None] - shown) ** 2 / (
        2 * sigma**2
    )
    weight = (log_weight - log_weight.max(dim=1, keepdim=True).values).exp()
    expected = torch.trapezoid(z * weight, z) / torch.trapezoid(weight, z)
    torch.testing.assert_close(mean.flatten(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("variance", [1e-3, 1e-2])
def test_the_posterior_mean_of_rounding_is_nearer_than_both(subsampling: str, variance: float) -> None:
    """z ~ N(x, variance): the mean errs less than x, and than the decoded picture."""
    operator = Jpeg((3, 96, 96), 50, subsampling)  # type: ignore[arg-type]
    x = 0.6 * torch.from_numpy(photograph(96, 96) / 127.5 - 1).permute(2, 0, 1)[None]
    z = x + variance**0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    y = operator.forward(z)
    error = (operator.posterior_mean(x, y, 0.0, variance) - z).square().mean()
    assert error < 1.01 * (x - z).square().mean() and error < (y - z).square().mean()


@pytest.mark.parametrize("operator", [Jpeg((3, 16, 16), 10), Clip((3, 16, 16), 2.0), Identity((3, 16, 16))])
@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_variance_that_is_none(operator: Operator, variance: float) -> None:
    x = images((3, 16, 16), 1)
    with pytest.raises(ValueError, match="variance is"):
        operator.posterior_mean(x, x, 0.1, variance)
    with pytest.raises(ValueError, match="1 images and 2 measurements"):
        operator.posterior_mean(x, x.repeat(2, 1, 1, 1), 0.1, 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_posterior_mean_in_half_precision(dtype: torch.dtype) -> None:
    operator, x = GaussianBlur((3, 32, 32), 9, 1.5), images((3, 32, 32), 1).to(dtype)
    y = operator.forward(images((3, 32, 32), 2)[1:]).to(dtype)
    mean = operator.posterior_mean(x, y, 0.01, 3000.0)
    assert mean.dtype == dtype
    torch.testing.assert_close(mean, operator.prox(x, y, 1e-4 / 3000), rtol=0.02, atol=0.02)


def test_what_has_no_posterior_mean_says_so() -> None:
    operator = PhaseRetrieval(SHAPE)
    assert not operator.has_posterior_mean and not Compose(operator, Crop((3, 40, 40), SHAPE[1:])).has_posterior_mean
    with pytest.raises(ValueError, match="PhaseRetrieval is not linear"):
        operator.posterior_mean(images(), operator.forward(images()), 0.1, 0.1)
