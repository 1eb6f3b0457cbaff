"""Where a periodic artifact can stand: lattice lines, the baseband, the bins around a line.

Everything here is bookkeeping on integer DFT bins of an H×W image whose sides are multiples of the
period; k = (ky, kx) stands for the frequency (ky/H, kx/W) in cycles per pixel.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

MIN_PERIODS = 6
Bin = tuple[int, int]


@functools.cache
def lattice_lines(period: int) -> tuple[Bin, ...]:
    """List the lines (a, b) of exact period `period`: frequencies (a/P, b/P), conjugate pairs once.

    The exact period of (a, b) is lcm(P/gcd(a, P), P/gcd(b, P)). Of the pair ±(a, b) the one in the
    half plane 0 ≤ b ≤ P/2 is listed, with a > 0 on its borders; -P/2 < a ≤ P/2.
    """
    half = period // 2
    lines = []
    for b in range(half + 1):
        for a in range(-((period - 1) // 2), half + 1):
            exact = math.lcm(period // math.gcd(a, period), period // math.gcd(b, period))
            if exact == period and (a >= 0 or 0 < 2 * b < period):
                lines.append((a, b))
    return tuple(lines)


def degrees(line: Bin, period: int) -> int:
    """Degrees of freedom of a line's complex amplitude: 1 where 2α is a whole vector, else 2."""
    return 1 if 2 * line[0] % period == 0 and 2 * line[1] % period == 0 else 2


def to_bin(line: Bin, period: int, size: Bin) -> Bin:
    """DFT bin of a line in an image of `size`, which must be a multiple of the period."""
    return line[0] * size[0] // period, line[1] * size[1] // period


def signed_bins(length: int) -> NDArray[np.int64]:
    """DFT bin numbers 0 … n/2, -n/2 … -1 of one axis."""
    return np.fft.fftfreq(length, 1 / length).round().astype(np.int64)


def near_lattice(periods: tuple[int, ...], size: Bin, reach: int) -> NDArray[np.bool_]:
    """Mark the bins (H, W) within Chebyshev distance `reach` of a lattice line or of zero."""
    marked = np.zeros(size, dtype=bool)
    span = np.arange(-reach, reach + 1)
    for period in periods:
        rows = (np.arange(period)[:, None] * size[0] // period + span) % size[0]
        columns = (np.arange(period)[:, None] * size[1] // period + span) % size[1]
        marked[np.ix_(rows.ravel(), columns.ravel())] = True
    return marked


def neighbors(line: Bin, period: int, size: Bin, near: NDArray[np.bool_]) -> NDArray[np.int64]:
    """List non-lattice bins (n, 2) around a line: what the estimator reads where no line can stand.

    Interior lines: Chebyshev distance 3 … 4. Lines on an axis: along that axis only, 3 … 7, because
    axes carry the ridges of real edges. Where another line is too close (`near`, see
    `near_lattice`) a bin is skipped; conjugate duplicates are dropped. Where this leaves fewer
    than six, the reach grows.
    """
    center = np.array(to_bin(line, period, size))
    # From here on the shifted baseband does not reach DC and its leakage of one bin.
    clear = np.array(size) // (2 * period) + 2
    on_axis = 0 in line
    for reach in (7, 11, 15) if on_axis else (4, 6, 9, 12):
        span = np.arange(-reach, reach + 1)
        dy, dx = (grid.ravel() for grid in np.meshgrid(span, span, indexing="ij"))
        keep = np.maximum(abs(dy), abs(dx)) >= 3
        if on_axis:
            keep &= (dy if line[0] == 0 else dx) == 0
        found: dict[Bin, None] = {}
        for ky, kx in (center + np.stack([dy[keep], dx[keep]], axis=1)) % size:
            far = min(ky, size[0] - ky) >= clear[0] or min(kx, size[1] - kx) >= clear[1]
            twin = ((-ky) % size[0], (-kx) % size[1])
            if far and not near[ky, kx] and twin not in found:
                found[(int(ky), int(kx))] = None
        if len(found) >= 6:
            break
    return np.array(list(found), dtype=np.int64).reshape(-1, 2)


def minimum_size(period: int) -> int:
    """Smallest side in pixels that holds enough periods to tell a line from its surroundings."""
    return MIN_PERIODS * period
