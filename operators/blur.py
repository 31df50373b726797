"""Blurs: every pixel is a weighted sum of its neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from operators.base import Array, Operator, Projection, Shape
from operators.convolution import LinearMap, apply_linear, blur_matrix, correlated, filtered, folded, wrapped_power
from operators.kernels import gaussian_kernel, motion_kernel
from operators.spectral import Separable
from operators.validation import Odd, Unit, as_tensor, settings

__all__ = ["Blur", "GaussianBlur", "GaussianBlurSettings", "MotionBlur", "MotionBlurSettings"]

# Milliseconds for a batch of B RGB images, float32, forward / forward and backward, one thread of a 2-core
# processor with AVX-512; two threads halve them and keep their order.
#                         256 px, B = 1   256 px, B = 4   512 px, B = 1   512 px, B = 4
#  7 x 7   FFT               2.5 / 5.9       9.2 / 20        7.6 / 18        34 / 74
#          direct            2.1 / 6.1       2.9 / 7.5       8.5 / 19        14 / 33
# 25 x 25  FFT               1.5 / 4.1       7.0 / 20        7.2 / 16        32 / 78
#          direct             16 / 36         19 / 44         64 / 150       68 / 143
#          two lines of 25   3.1 / 6.0       3.4 / 9.1        16 / 44        22 / 51
#          two matrices      2.1 / 4.6       9.3 / 20         20 / 38       104 / 180
# 61 x 61  FFT               1.9 / 6.2        13 / 21         12 / 22        42 / 73
#          direct             93 / 231       100 / 236       371 / 839         -
# So wide kernels go by FFT. Those up to this many pixels are applied directly: the FFT is faster from 7 pixels on,
# but only the same sums reproduce the published Gaussian blur to its last bit (an FFT is 1.5e-6 off).
DIRECT_UP_TO = 25
RANK_ONE = 1e-6  # a kernel whose second singular value is below this share of the first is a column times a row


class Blur(Operator):
    """Images are convolved with a kernel: y[i] = sum_t k[t] x[i - t + centre] (Ahn et al. 2024, deblurring).

    The kernel is the point spread function (PSF): a single bright pixel becomes the kernel, and the blur equals
    scipy.ndimage.convolve(mode="mirror") of each channel. The image is continued by reflection, its border pixel
    not repeated. The published programs correlate: their blur is this one with the kernel flipped in both axes.
    `kernel` is (k, k), (B, k, k) or (B, 1, k, k), of odd sides, which may differ; a single kernel serves every
    image, and its sum is left as it is. Entries may be negative: estimated kernels have such entries, and
    sharpening filters too. `project` with "published" has T = identity, x - A x + y: the fine detail of x on top
    of y. With "adjoint" it is a gradient step of length 1 on ||A x - y||^2 / 2.
    ValueError: a kernel that is not finite or zero everywhere, or an image no larger than half a kernel.
    """

    per_image = ("kernel",)

    def __init__(self, kernel: Array, in_shape: Shape, *, project: str = "published") -> None:
        super().__init__(in_shape, in_shape, project=project)
        self.kernel = _check_kernel(kernel)
        self._pad = self.kernel.shape[-2] // 2, self.kernel.shape[-1] // 2
        _check_room(self.in_shape, self._pad)

    def arrays(self, b: int) -> dict[str, NDArray[Any]]:
        """{"kernel": (k, k), float64}, the PSF of image b."""
        return {"kernel": self._own("kernel", b)[0].detach().cpu().double().numpy().copy()}

    def _forward(self, x: Tensor) -> Tensor:
        return apply_linear(x, self._convolve, self._spread)

    def _adjoint(self, y: Tensor) -> Tensor:
        return apply_linear(y, self._spread, self._convolve)

    def _solve(self, r: Tensor, rho: Tensor, start: Tensor | None, tolerance: float, iterations: int) -> Tensor:
        """In closed form where the kernel is a column times a row; `rho` may be one for each image."""
        separable = self._lines[2]
        if bool(separable.all()):
            return self._separable.solve(r, rho)
        if not bool(separable.any()):
            return super()._solve(r, rho, start, tolerance, iterations)
        rhos = rho.expand(len(r), -1, -1, -1)
        parts = [
            self.select([b])._solve(
                r[b : b + 1], rhos[b : b + 1], None if start is None else start[b : b + 1], tolerance, iterations
            )
            for b in range(len(r))
        ]
        return torch.cat(parts)

    def _preconditioner(self, r: Tensor, rho: Tensor) -> LinearMap:
        """(|K|^2 + rho)^-1 of the kernel's spectrum K: exact but for the image's border."""
        size = (self.in_shape[1], self.in_shape[2])
        power = self._wrapped_power.to(device=r.device, dtype=r.dtype)

        def apply(u: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(u) / (power + rho), s=size)

        return apply

    @cached_property
    def _wrapped_power(self) -> Tensor:
        """|K|^2 of the kernel wrapped around the image, (1 or B, 1, H, W / 2 + 1), at least a rounding error."""
        return wrapped_power(self.kernel[:, 0].double(), self.in_shape[1], self.in_shape[2])[:, None].clamp(min=1e-8)

    @cached_property
    def _lines(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of each kernel the column and the row whose product is nearest to it, and whether it is equal to that."""
        columns, values, rows = torch.linalg.svd(self.kernel[:, 0].double(), full_matrices=False)
        root = values[:, :1].sqrt()
        separable = values[:, 1:].amax(dim=1) < RANK_ONE * values[:, 0] if values.shape[1] > 1 else values[:, 0] > 0
        return columns[..., 0] * root, rows[:, 0] * root, separable

    @cached_property
    def _separable(self) -> Separable:
        column, row, _ = self._lines
        return Separable.of(blur_matrix(column, self.in_shape[1]), blur_matrix(row, self.in_shape[2]))

    def _published_glue(self, y: Tensor) -> Tensor:
        return y

    def _convolve(self, x: Tensor) -> Tensor:
        """Reflect, then convolve where the kernel lies inside."""
        rows, columns = self._pad
        padded = F.pad(x, (columns, columns, rows, rows), mode="reflect")
        if self._is_direct(x):
            return correlated(padded, self.kernel.to(x).flip(-2, -1))
        return filtered(padded, self._spectrum(x).conj(), self._fft_size)[..., : x.shape[-2], : x.shape[-1]]

    def _spread(self, y: Tensor) -> Tensor:
        """The adjoint of `_convolve`: correlate in full, then fold the margins back."""
        rows, columns = self._pad
        if self._is_direct(y):
            zeros = F.pad(y, (2 * columns, 2 * columns, 2 * rows, 2 * rows))
            padded = correlated(zeros, self.kernel.to(y))
        else:
            height, width = y.shape[-2] + 2 * rows, y.shape[-1] + 2 * columns
            padded = filtered(y, self._spectrum(y), self._fft_size)[..., :height, :width]
        return folded(folded(padded, -2, rows), -1, columns)

    def _is_direct(self, x: Tensor) -> bool:
        # Never on a GPU, where a convolution is rounded to TF32 unless told otherwise.
        return x.device.type == "cpu" and max(self.kernel.shape[-2:]) <= DIRECT_UP_TO

    @property
    def _fft_size(self) -> tuple[int, int]:
        """A fast size that holds the reflected image: what wraps around is cut off."""
        from scipy.fft import next_fast_len

        height, width = (side + 2 * pad for side, pad in zip(self.in_shape[1:], self._pad, strict=True))
        return int(next_fast_len(height, real=True)), int(next_fast_len(width, real=True))

    @cached_property
    def _spectra(self) -> dict[tuple[torch.device, torch.dtype], _Spectrum]:
        return {}

    def _spectrum(self, x: Tensor) -> Tensor:
        """The spectrum of the flipped kernel: to correlate with that is to convolve with the kernel."""
        key = x.device, torch.float64 if x.dtype == torch.float64 else torch.float32
        found = self._spectra.get(key)  # read once: another thread may put its own in place
        if found is None or found.kernel is not self.kernel or found.version != self.kernel._version:
            flipped = self.kernel.to(*key).flip(-2, -1)
            found = _Spectrum(self.kernel, self.kernel._version, torch.fft.rfft2(flipped, s=self._fft_size))
            self._spectra[key] = found
        return found.values


@dataclass(frozen=True)
class _Spectrum:
    """A spectrum and the kernel that it belongs to, which may be replaced, or changed in place."""

    kernel: Tensor
    version: int
    values: Tensor


Std = Annotated[float, Field(ge=0.01, le=1000)]  # pixels; below, a kernel has one tap, and its exponent overflows


@settings
class GaussianBlurSettings:
    """`kernel_size` and `std` in pixels, see `gaussian_kernel`; `project` as in `Operator`."""

    kernel_size: Odd
    std: Std
    project: Projection = "published"


class GaussianBlur(Blur):
    """Blur with a Gaussian kernel (Ahn et al. 2024, Tables 5 and 7: kernel_size 61, std 3.0 at 256 pixels).

    See `gaussian_kernel`. Its taps end at 4 std; the zeros beyond are left out, which changes only the cost.
    """

    Settings: ClassVar[type] = GaussianBlurSettings

    def __init__(self, in_shape: Shape, kernel_size: int = 61, std: float = 3.0, *, project: str = "published") -> None:
        kernel = gaussian_kernel(kernel_size, std)
        taps = np.flatnonzero(kernel[kernel_size // 2])
        inner = slice(taps[0], taps[-1] + 1)
        super().__init__(kernel[inner, inner], in_shape, project=project)

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: GaussianBlurSettings, rngs: Sequence[np.random.Generator]
    ) -> GaussianBlur:
        return cls(in_shape, settings.kernel_size, settings.std, project=settings.project)


@settings
class MotionBlurSettings:
    """`kernel_size` in pixels, `intensity` from 0 (a straight line) to 1, see `motion_kernel`; `center` moves the
    path to the middle of the kernel; `project` as in `Operator`."""

    kernel_size: Odd
    intensity: Unit
    center: bool = False
    project: Projection = "published"


class MotionBlur(Blur):
    """Blur with a random camera path for each image (Ahn et al. 2024, Tables 5 and 7: kernel_size 61 and
    intensity 0.5 at 256 pixels).

    One kernel is drawn from each generator of `rngs`; see `motion_kernel` for the other arguments.
    """

    Settings: ClassVar[type] = MotionBlurSettings

    def __init__(
        self,
        in_shape: Shape,
        rngs: Sequence[np.random.Generator],
        kernel_size: int = 61,
        intensity: float = 0.5,
        center: bool = False,
        *,
        project: str = "published",
    ) -> None:
        if not rngs:
            raise ValueError("no random generator: give one for each image")
        kernels = np.stack([motion_kernel(kernel_size, intensity, rng, center) for rng in rngs])
        super().__init__(kernels, in_shape, project=project)

    @classmethod
    def _from_settings(
        cls, in_shape: Shape, settings: MotionBlurSettings, rngs: Sequence[np.random.Generator]
    ) -> MotionBlur:
        chosen = settings.kernel_size, settings.intensity, settings.center
        return cls(in_shape, rngs, *chosen, project=settings.project)


def _check_kernel(kernel: Array) -> Tensor:
    values = as_tensor(kernel, "kernel")
    shape = tuple(values.shape)
    if values.ndim == 4 and shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (2, 3) or values.shape[-2] % 2 == 0 or values.shape[-1] % 2 == 0:
        raise ValueError(f"kernel of shape {shape}; it is (height, width), or (B, 1, height, width), both sides odd")
    empty = ~values.flatten(-2).any(dim=-1)
    if bool(empty.any()):
        which = f" {int(empty.nonzero()[0])}" if values.ndim == 3 else ""
        raise ValueError(f"kernel{which} is 0 everywhere: nothing is measured; an entry of it must not be 0")
    return values.reshape(-1, 1, *values.shape[-2:])


def _check_room(in_shape: Shape, pad: tuple[int, int]) -> None:
    if not all(margin < side for margin, side in zip(pad, in_shape[1:], strict=True)):
        height, width = in_shape[1:]
        raise ValueError(
            f"an image of {height} x {width} pixels is too small for a kernel of {2 * pad[0] + 1} x "
            f"{2 * pad[1] + 1}: both sides must exceed half the kernel's; take a smaller kernel"
        )
