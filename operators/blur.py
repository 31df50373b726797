"""Blurs: every pixel is a weighted sum of its neighbourhood."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from operators.base import Array, Operator, Projection, Shape
from operators.convolution import LinearMap, apply_linear, blur_matrix, correlated, filtered, folded, wrapped_power
from operators.kernels import gaussian_kernel, motion_kernel
from operators.spectral import Factors, Separable, circulant_inverse, is_rank_one, nearest_lines
from operators.validation import Odd, Unit, as_tensor, settings

__all__ = ["Blur", "GaussianBlur", "GaussianBlurSettings", "MotionBlur", "MotionBlurSettings"]

T = TypeVar("T")

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
    stationary = True

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
        """In closed form where the kernel is a column times a row; a batch may hold both kinds."""
        separable = self._separable
        if separable is not None:
            return separable.solve(r, rho)
        parts = self._parts
        if len(parts) == 1:
            return super()._solve(r, rho, start, tolerance, iterations)
        rho, u = rho.expand(len(r), -1, -1, -1), torch.empty_like(r)
        for part, blur in parts:
            first = None if start is None else start[part]
            u[part] = blur._solve(r[part], rho[part], first, tolerance, iterations)
        return u

    def _preconditioner(self, r: Tensor, rho: Tensor) -> LinearMap:
        """(|K|^2 + BORDER rho)^-1 of the kernel's spectrum K, which is A A* but for the image's border."""
        height, width = self.in_shape[1:]
        power = self._of_kernel("power", lambda: wrapped_power(self.kernel[:, 0].double(), height, width)[:, None])
        return circulant_inverse(power.to(device=r.device, dtype=r.dtype), rho, (height, width))

    @property
    def _parts(self) -> list[tuple[list[int], Blur]]:
        """The images whose kernels are a column times a row, and the others, each with their operator."""

        def split() -> list[tuple[list[int], Blur]]:
            separable = is_rank_one(self.kernel[:, 0].double())
            kinds = [torch.nonzero(kind).flatten().tolist() for kind in (separable, ~separable)]
            return [(kind, self.select(kind)) for kind in kinds if kind]

        return self._of_kernel("parts", split)

    @property
    def _separable(self) -> Separable | None:
        """The closed form; None where a kernel is not a column times a row."""

        def decompose() -> Separable | None:
            factors = self._factors()
            return None if factors is None else factors.separable(*self.out_shape[1:])

        return self._of_kernel("separable", decompose)

    def _factors(self) -> Factors | None:
        kernels = self.kernel[:, 0].double()
        if not bool(is_rank_one(kernels).all()):
            return None
        columns, rows = nearest_lines(kernels)
        _, height, width = self.in_shape
        return Factors(rows=blur_matrix(columns, height), columns=blur_matrix(rows, width))

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

    def _spectrum(self, x: Tensor) -> Tensor:
        """The spectrum of the flipped kernel: to correlate with that is to convolve with the kernel."""
        place = x.device, torch.float64 if x.dtype == torch.float64 else torch.float32
        return self._of_kernel(
            ("spectrum", *place), lambda: torch.fft.rfft2(self.kernel.to(*place).flip(-2, -1), s=self._fft_size)
        )

    @cached_property
    def _known(self) -> dict[Hashable, _Known]:
        return {}

    def _of_kernel(self, name: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives, computed anew where the kernel was replaced or changed in place."""
        found = self._known.get(name)  # read once: another thread may put its own in place
        if found is None or found.kernel is not self.kernel or found.version != self.kernel._version:
            found = self._known[name] = _Known(self.kernel, self.kernel._version, compute())
        value: T = found.value
        return value


@dataclass(frozen=True)
class _Known:
    """What was computed from a kernel."""

    kernel: Tensor
    version: int
    value: Any


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
