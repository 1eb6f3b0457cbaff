"""How many kernel taps each output pixel of a transposed convolution sees; numpy only, instant.

Per axis, with kernel k, stride s, padding p and dilation d, output pixel n is reached by the taps
j with n + p = s·m + d·j: those whose d·j ≡ n + p (mod s). Unequal counts are the overlap artifacts
of Odena et al. 2016 (https://doi.org/10.23915/distill.00003); no tap at all is a hole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.system.errors import InputError

Counts = NDArray[np.int64]
Axes = int | tuple[int, ...]


@dataclass(frozen=True)
class Overlap:
    """Taps per output pixel.

    Attributes:
        pattern: One interior period (s, …): entry r holds the taps of pixels n ≡ r (mod s).
        counts: The whole output, borders included: the transposed convolution of ones with ones.
        stride: Period of the pattern along each axis.
    """

    pattern: Counts
    counts: Counts
    stride: tuple[int, ...]

    @property
    def holes(self) -> int:
        """Number of interior phases that no tap reaches."""
        return int((self.pattern == 0).sum())

    @property
    def even(self) -> bool:
        """Whether every interior pixel sees as many taps as any other."""
        return bool((self.pattern == self.pattern.flat[0]).all())

    @property
    def period(self) -> int:
        """Period of the pattern in pixels, over the axes along which it varies; 1 when even."""
        varies = (np.ptp(self.pattern, axis).any() for axis in range(self.pattern.ndim))
        return math.lcm(*(s for s, uneven in zip(self.stride, varies, strict=True) if uneven))


def overlap(
    kernel_size: Axes,
    stride: Axes,
    padding: Axes = 0,
    output_padding: Axes = 0,
    dilation: Axes = 1,
    size: Axes = 8,
) -> Overlap:
    """Count the taps behind each output pixel of a transposed convolution.

    Args:
        kernel_size: Taps per axis; like all others one number for both axes, or one per axis.
        stride: Enlargement.
        padding: Pixels cut from each side of the output.
        output_padding: Pixels appended at its end; less than stride or dilation.
        dilation: Distance of neighboring taps.
        size: Pixels of the input map.

    Raises:
        ValueError: For values that no transposed convolution takes.
    """
    given = (kernel_size, stride, padding, output_padding, dilation, size)
    axes = max((len(value) for value in given if isinstance(value, tuple)), default=2)
    per_axis = [value if isinstance(value, tuple) else (value,) * axes for value in given]
    if {len(values) for values in per_axis} != {axes}:
        raise InputError(f"{given}: give one number for all axes, or one per axis")
    patterns, counts, strides = [], [], []
    for values in zip(*per_axis, strict=True):
        _check(*values)
        pattern, count = _along_axis(*values)
        patterns.append(pattern)
        counts.append(count)
        strides.append(values[1])
    return Overlap(_outer(patterns), _outer(counts), tuple(strides))


def _check(kernel: int, stride: int, padding: int, extra: int, dilation: int, size: int) -> None:
    named = {"kernel size": kernel, "stride": stride, "dilation": dilation, "size": size}
    for name, value in named.items():
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if padding < 0:
        raise InputError(f"padding is {padding}; it must be at least 0")
    if not 0 <= extra < max(stride, dilation):
        raise InputError(
            f"output padding is {extra}; it must be at least 0 and less than stride or dilation"
        )
    length = (size - 1) * stride + dilation * (kernel - 1) + 1 + extra - 2 * padding
    if length < 1:
        raise InputError(f"padding is {padding}; it leaves nothing of the output ({length} pixels)")


def _along_axis(
    kernel: int, stride: int, padding: int, extra: int, dilation: int, size: int
) -> tuple[Counts, Counts]:
    """Interior pattern (s,) and counts (length,) of one axis."""
    taps = dilation * np.arange(kernel)
    pattern = np.bincount((taps - padding) % stride, minlength=stride)
    full = (size - 1) * stride + dilation * (kernel - 1) + 1
    reached = (stride * np.arange(size)[:, None] + taps).ravel()
    counts = np.bincount(reached, minlength=full + extra)
    return pattern, counts[padding : full + extra - padding]


def _outer(vectors: list[Counts]) -> Counts:
    product = vectors[0]
    for vector in vectors[1:]:
        product = product[..., None] * vector
    return product


def modulation_depth(found: Overlap) -> float:
    """Modulation of brightness by equal weights: (max − min)/(max + min) of the pattern, 0 … 1."""
    low, high = int(found.pattern.min()), int(found.pattern.max())
    return (high - low) / max(high + low, 1)


def verdict(found: Overlap) -> str:
    """Say in one sentence what the counts mean."""
    low, high = int(found.pattern.min()), int(found.pattern.max())
    if found.holes:
        return (
            f"Holes: {found.holes} of {found.pattern.size} interior phases see no tap at all and "
            "show the bias alone, whatever the weights."
        )
    if found.even:
        return (
            f"Even: every interior pixel sees {low} taps, so the geometry leaves no grid; "
            "random or trained weights still can."
        )
    return (
        f"Uneven: interior pixels see {low} to {high} taps; equal weights would print a grid of "
        f"period {found.period} with ±{100 * modulation_depth(found):.0f} % of the "
        "brightness."
    )


def better_axis(kernel: int, stride: int) -> tuple[int, int, int]:
    """Nearest (kernel, padding, output padding), not smaller, that is even and enlarges exactly."""
    kernel = -(-kernel // stride) * stride
    padding = -(-(kernel - stride) // 2)
    return kernel, padding, 2 * padding - (kernel - stride)


def recommend(kernel_size: tuple[int, ...], stride: tuple[int, ...], found: Overlap) -> str:
    """Say in one sentence what to use instead, or in addition."""
    if found.even and not found.holes:
        return (
            "To be even for any weights: a balanced transposed convolution (--upsample balanced), "
            "or nearest enlargement and a convolution."
        )
    axes = [better_axis(k, s) for k, s in zip(kernel_size, stride, strict=True)]
    kernel, padding, extra = (
        "x".join(map(str, values)) if len(set(values)) > 1 else str(values[0])
        for values in zip(*axes, strict=True)
    )
    return (
        f"Instead: --kernel {kernel} --stride {'x'.join(map(str, dict.fromkeys(stride)))} "
        f"--padding {padding} --output-padding {extra} (the stride divides the kernel), nearest "
        "enlargement and a convolution, or a sub-pixel convolution with ICNR initialization."
    )
