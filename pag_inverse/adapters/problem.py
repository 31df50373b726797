"""Measurements of deepinv as problems of this package."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from operators import (
    Blur,
    Compose,
    GaussianNoise,
    Grayscale,
    Identity,
    Inpainting,
    Noise,
    NoNoise,
    Operator,
    PoissonNoise,
    SuperResolution,
)
from operators.base import Shape
from operators.validation import check_shape, short
from pag_inverse.adapters.channels import AsComplex, EachChannel
from pag_inverse.adapters.physics import PhysicsOperator, packed, reference
from pag_inverse.problem import InverseProblem
from pag_inverse.settings import check_number

AGREEMENT = 1e-5  # of an operator of this package with the physics that it stands for


def physics_operator(physics: Any, img_size: Shape, batch: int = 1) -> Operator:
    """The operator of a physics of deepinv for images (3, H, W); `img_size` (C, H, W) is that of the physics' images.

    C = 3: colours. C = 1: a grey picture is restored as three equal channels, each of which the physics sees. C = 2: a
    complex one (MRI), whose imaginary part is 0, likewise. `batch` is for how many images the physics holds masks or
    kernels, where it holds several. An operator of this package stands in where it gives the same to 1e-5, since it has
    a closed form of `solve`: inpainting, denoising, greyscale, reflected blurs and `DownsamplingMatlab`.
    ValueError: another C, or as in `PhysicsOperator`.
    """
    channels, height, width = check_shape(img_size)
    if channels not in (1, 2, 3):
        raise ValueError(f"the physics takes images of {channels} channels; priors of pictures take 1, 2 or 3")
    wrapped = PhysicsOperator(physics, img_size, batch)
    if channels == 2:
        if not wrapped.linear:
            raise ValueError("the physics takes complex images and is not linear; only linear ones take them here")
        return EachChannel(Compose(wrapped, AsComplex((1, height, width), (2, height, width))))
    native = _native(physics, wrapped)
    if channels == 1 and native is None:
        return EachChannel(wrapped)
    return native or wrapped


def physics_problem(
    y: Any, physics: Any, *, img_size: Shape | None = None, sigma: float | None = None
) -> InverseProblem:
    """What deepinv's `y = physics(u)` measures of images u in [0, 1], as a problem of images x = 2 u - 1.

    A linear A: 2 y - A 1 = A x + 2 n. Another: 2 y = 2 A((x + 1) / 2) + 2 n. sigma of the problem is twice deepinv's.
    The noise is the physics' own: none, Gaussian, or Poisson of gain g, which is 1 / g photons at white. `sigma`, on
    deepinv's [0, 1], replaces it by Gaussian noise. `img_size` (C, H, W): of the images, where the physics does not
    tell. Of grey and complex pictures, all three channels have the one measurement: their noise counts as sqrt(3) times
    as strong (a third of the photons), so that together they weigh as one.
    ValueError: another noise, noise that differs from image to image, a sensor, or as in `physics_operator`.

    >>> import torch
    >>> from deepinv.physics import GaussianNoise, Inpainting
    >>> physics = Inpainting(img_size=(3, 64, 64), mask=0.5, noise_model=GaussianNoise(0.025))
    >>> problem = physics_problem(physics(torch.rand(1, 3, 64, 64)), physics)
    >>> round(problem.noise.sigma, 6), problem.operator.in_shape
    (0.05, (3, 64, 64))
    """
    found = problems(y, physics, img_size, sigma)
    if len(found) > 1:
        raise ValueError(f"the noise differs between {len(found)} groups of images; give one image at a time")
    return found[0][1]


class CountsNoise(PoissonNoise):
    """Poisson noise of a linear A with A 1 = `offset`: y = 2 k / peak - offset, k ~ Poisson(peak (A x + offset) / 2).

    `offset` is (1, *out_shape). With an offset of 1 it is `PoissonNoise`. ValueError as there.
    """

    def __init__(self, peak: float, offset: Tensor) -> None:
        super().__init__(peak)
        self.offset = offset

    def __call__(self, y: Tensor, draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        shift = self.offset.to(y) - 1
        return super().__call__(y + shift, draw) - shift

    def photons(self, y: Tensor) -> Tensor:
        """peak (y + offset) / 2, at least 0: a tensor like y."""
        return (self.peak * (y + self.offset.to(y)) / 2).clamp(min=0)

    def normal(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """N(k + min(k, 1), k + 1) in photons, see `PoissonNoise.normal`."""
        k = self.photons(y)
        return 2 * (k + k.clamp(max=1)) / self.peak - self.offset.to(y), 2 * (k + 1).sqrt() / self.peak


Group = tuple[list[int], InverseProblem]  # positions in the batch, and what was measured there


def problems(y: Any, physics: Any, img_size: Shape | None, sigma: float | None) -> list[Group]:
    """The problems of a batch, one for each level of noise."""
    _check_kinds(y, physics)
    shape = image_shape(y, physics, img_size)
    copies = 1 if shape[0] == 3 else 3  # of a grey measurement, one for each channel
    measured = packed(y).float().repeat(1, copies, 1, 1)
    operator = physics_operator(physics, shape, len(measured))
    if tuple(measured.shape[1:]) != operator.out_shape:
        raise ValueError(
            f"y is {tuple(measured.shape)}, but the physics gives {(len(measured), *operator.out_shape)} for images "
            f"of {shape}; give img_size=(C, H, W)"
        )
    _check_sensor(physics, measured)
    ones = torch.ones(len(measured), 3, *shape[1:], device=measured.device)
    offset = operator.forward(ones) if operator.linear else torch.zeros_like(measured)
    levels, make = _noise(physics, sigma, len(measured))
    if make is _counts and not _noise_model(physics).normalize:
        measured = measured * levels.to(measured).reshape(-1, 1, 1, 1)  # photons, in units of light
    values = (2 * measured - offset) * operator.observation_mask(measured)
    found = []
    for indices in _alike(levels, offset if make is _counts else offset[:1]):
        noise = make(float(levels[indices[0]]), copies, offset[indices[:1]])
        found.append((indices, InverseProblem(values[indices], operator.select(indices), noise)))
    return found


def _alike(levels: Tensor, offset: Tensor) -> list[list[int]]:
    """The positions of images of one level of noise; each alone where their offsets differ."""
    same = bool((offset == offset[:1]).all())
    keys = [(level, 0 if same else b) for b, level in enumerate(levels.tolist())]
    return [[b for b, own in enumerate(keys) if own == key] for key in dict.fromkeys(keys)]


def _noise(physics: Any, sigma: float | None, batch: int) -> tuple[Tensor, Callable[[float, int, Tensor], Noise]]:
    """The level of each image's noise, (B,), and what makes noise of a level, a number of copies and an offset."""
    from deepinv.physics import noise as models

    if sigma is not None:
        return torch.full((batch,), check_number("sigma (on [0, 1])", sigma, maximum=5.0)), _gaussian
    model = _noise_model(physics)
    if isinstance(model, models.ZeroNoise):
        return torch.zeros(batch), _gaussian
    if type(model) is models.GaussianNoise:
        return _levels(model.sigma, batch), _gaussian
    if type(model) is models.PoissonNoise:
        return _levels(model.gain, batch), _counts
    known = "ZeroNoise, GaussianNoise or PoissonNoise"
    raise ValueError(f"noise is a {type(model).__name__}; it must be {known}, or give sigma=, its deviation on [0, 1]")


def _parts(physics: Any) -> list[Any]:
    """The physics themselves, where several are stacked."""
    from deepinv.physics import StackedPhysics

    return list(physics.physics_list) if isinstance(physics, StackedPhysics) else [physics]


def _noise_model(physics: Any) -> Any:
    """The noise of a physics; of stacked ones, that of their parts where it is the same."""
    found = [part.noise_model for part in _parts(physics)]
    if len({f"{type(model).__name__} {dict(model.named_buffers())}" for model in found}) > 1:
        raise ValueError("the stacked physics have different noises; give sigma=, one deviation on [0, 1]")
    return found[0]


def _levels(level: Tensor, batch: int) -> Tensor:
    values = level.detach().float().cpu().reshape(-1)
    if len(values) not in (1, batch):
        raise ValueError(f"the noise has {len(values)} levels for {batch} images; it must have one, or one for each")
    return values.expand(batch)


def _gaussian(level: float, copies: int, offset: Tensor) -> Noise:
    return GaussianNoise(2 * level * copies**0.5) if level > 0 else NoNoise()


def _counts(level: float, copies: int, offset: Tensor) -> Noise:
    if not level > 0:
        raise ValueError(f"the gain of Poisson noise is {level:g}; it must be above 0")
    return CountsNoise(1 / (level * copies), offset)


def _check_kinds(y: Any, physics: Any) -> None:
    from deepinv.physics import Physics
    from deepinv.utils import TensorList

    if not isinstance(physics, Physics):
        raise ValueError(f"physics is a {type(physics).__name__}; it must be a deepinv.physics.Physics")
    if not isinstance(y, (Tensor, TensorList)):
        raise ValueError(f"y is a {type(y).__name__}; it must be a tensor, or deepinv's TensorList")


def _check_sensor(physics: Any, y: Tensor) -> None:
    """A sensor that saturates or quantises changes y after the noise: no problem here says so."""
    probe = torch.linspace(-3, 3, 64, device=y.device)
    try:
        plain = all(bool(torch.equal(part.sensor(probe), probe)) for part in _parts(physics))
    except (RuntimeError, ValueError, TypeError):
        plain = False
    if not plain:
        raise ValueError("the physics has a sensor_model; set it to the identity, lambda y: y, to leave it out")


def _native(physics: Any, wrapped: PhysicsOperator) -> Operator | None:
    """This package's operator for a physics, where there is one that gives the same."""
    from deepinv import physics as known

    shape = (3, *wrapped.in_shape[1:])
    makers: dict[type, Callable[[], Operator]] = {
        known.Inpainting: lambda: Inpainting(physics.mask[:, 0], shape),
        known.Denoising: lambda: Identity(shape),
        known.Decolorize: lambda: Grayscale(shape, tuple(physics.srf.flatten().tolist())),
        known.Blur: lambda: Blur(physics.filter, shape),
        known.DownsamplingMatlab: lambda: SuperResolution(shape, int(physics.factor)),
    }
    x = torch.randn(max(2, wrapped.size), *shape, generator=torch.Generator().manual_seed(1))
    sees = wrapped if wrapped.in_shape[0] == 3 else EachChannel(wrapped)
    try:
        operator = makers[type(physics)]()
        found, expected = operator.forward(x), sees.forward(x)
    except (KeyError, ValueError, TypeError):
        return None
    same = found.shape == expected.shape and float((found - expected).abs().max()) <= AGREEMENT
    return operator if same else None


def image_shape(y: Any, physics: Any, img_size: Shape | None) -> Shape:
    """The shape (C, H, W) of the physics' images: given, of the adjoint, of its settings, or of y."""
    if img_size is not None:
        return check_shape(img_size)
    shapes: list[Sequence[int]] = []
    if hasattr(physics, "A_adjoint"):
        with contextlib.suppress(RuntimeError, ValueError, AssertionError, NotImplementedError, TypeError):
            shapes.append(physics.A_adjoint(y.to(reference(physics).device)).shape[1:])
    shapes += [size for size in (getattr(physics, "img_size", None), first_tensor(y).shape[1:]) if size is not None]
    for shape in shapes:
        if len(shape) == 3:
            return check_shape(tuple(int(side) for side in shape))
    raise ValueError(f"the shape of the images cannot be told from {short(shapes)}; give img_size=(C, H, W)")


def first_tensor(y: Any) -> Tensor:
    return y if isinstance(y, Tensor) else y[0]
