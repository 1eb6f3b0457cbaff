"""The estimator as its equations say it, tile by tile in float64: slow, and what tests trust.

One plane, one period, no blocks. Every function is one equation of the method; nothing is shared
with the fast path but the list of lattice lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Steps = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Tiles of `side` pixels at `rows` × `columns`; frequencies are steps of 1/`grid`."""

    side: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "grid", self.side // 2)
        object.__setattr__(self, "origins", [(y, x) for y in self.rows for x in self.columns])
        object.__setattr__(self, "span", (self.rows[-1] + self.side, self.columns[-1] + self.side))


def window(side: int) -> Values:
    """Periodic Hann window of sum 1 on both axes."""
    w = (1 - np.cos(2 * np.pi * np.arange(side) / side)) / side
    return np.outer(w, w)


def local_spectrum(image: Values, geometry: Geometry, k: Steps) -> NDArray[np.complex128]:
    """z_t(k) of every tile, eq. (1); phases refer to the image's origin."""
    side, out = geometry.side, []
    for y, x in geometry.origins:
        turns = np.add.outer(k[0] * np.arange(y, y + side), k[1] * np.arange(x, x + side))
        wave = np.exp(-2j * np.pi * turns / geometry.grid)
        out.append((window(side) * image[y : y + side, x : x + side] * wave).sum())
    return np.array(out)


def noise(image: Values, geometry: Geometry, k: Steps) -> Values:
    """v_t, eq. (2): mean |z|² one step around k; for an axis line along that axis; never zero."""
    ring = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    steps = [(0, -1), (0, 1)] if k[0] == 0 else [(-1, 0), (1, 0)] if k[1] == 0 else ring
    near = [(k[0] + a, k[1] + b) for a, b in steps]
    near = [j for j in near if j[0] % geometry.grid or j[1] % geometry.grid]
    return np.mean([np.abs(local_spectrum(image, geometry, j)) ** 2 for j in near], axis=0)


def weights(v: Values, side: int, floor: float = 0.3, alive: float = 1e-3) -> Values:
    """u_t, eq. (3)."""
    return np.where(v < alive**2, 0.0, (v + floor**2 * 2.25 / side**2) ** -0.75)


@dataclass(frozen=True)
class Solution:
    """Line a and replica g of eq. (4), their variances V and Kish's numbers, and what they use."""

    a: complex
    g: complex
    a_variance: float
    g_variance: float
    a_n: float
    g_n: float
    U: float
    D: float
    residuals: NDArray[np.complex128]  # u(z - a - g(m - m̄)), images × tiles
    centered: Values  # m - m̄


def solve(images: Sequence[Values], geometry: Geometry, k: Steps) -> Solution:
    """Line and replica at k of images (H, W) in gray levels minus 127.5."""
    z = np.array([local_spectrum(image, geometry, k) for image in images])
    m = np.array([local_spectrum(image, geometry, (0, 0)).real for image in images])
    u = np.array([weights(noise(image, geometry, k), geometry.side) for image in images])
    centered = m - (u * m).sum() / u.sum()
    U, D = u.sum(), (u * centered**2).sum()
    a, g = (u * z).sum() / U, (u * centered * z).sum() / D
    rest = z - a - g * centered
    s_a, s_g = (u * (z - a)).sum(1) / U, (u * centered * rest).sum(1) / D
    q, leverage = u.sum(1) ** (2 / 3), (u * centered**2).sum(1)
    a_n, g_n = q.sum() ** 2 / (q**2).sum(), leverage.sum() ** 2 / (leverage**2).sum()
    a_variance = (np.abs(s_a) ** 2).sum() * a_n / (a_n - 1)
    g_variance = (np.abs(s_g) ** 2).sum() * g_n / (g_n - 1)
    return Solution(a, g, a_variance, g_variance, a_n, g_n, U, D, u * rest, centered)


def placebo(solution: Solution, geometry: Geometry, d: Sequence[float]) -> tuple[complex, complex]:
    """Line and replica of the residuals at a shift d in cycles per pixel (§ 3)."""
    moved = solution.residuals * np.exp(-2j * np.pi * (np.array(geometry.origins) @ d))
    return moved.sum() / solution.U, (moved * solution.centered).sum() / solution.D


def response(geometry: Geometry, d: Sequence[float]) -> float:
    """R(d), eq. (5), from the sum of all shifted windows, pixel by pixel."""
    total, moved = np.zeros(geometry.span), np.zeros(geometry.span, complex)
    for origin in geometry.origins:
        place = tuple(slice(o, o + geometry.side) for o in origin)
        total[place] += window(geometry.side)
        moved[place] += window(geometry.side) * np.exp(-2j * np.pi * np.dot(d, origin))
    return float((np.abs(moved) ** 2).sum() / (total**2).sum())


def ratio(solution: Solution, geometry: Geometry, k: Steps, period: int) -> tuple[float, float]:
    """r of line and replica over all shifts |d| ≤ 1/4P, without free grid frequencies (§ 3).

    A line with one degree of freedom has conjugate placebos at d and -d: one of them counts.
    """
    reach = [int(span / (4 * period)) for span in geometry.span]
    real = all(2 * j % geometry.grid == 0 for j in k)
    power, expected = np.zeros(2), 0.0
    for i in range(-reach[0], reach[0] + 1):
        for j in range(-reach[1], reach[1] + 1):
            if max(abs(i), abs(j)) < 2 or (real and (j < 0 or (j == 0 and i < 0))):
                continue
            d = (i / geometry.span[0], j / geometry.span[1])
            line, replica = placebo(solution, geometry, d)
            power += abs(line) ** 2 / solution.a_variance, abs(replica) ** 2 / solution.g_variance
            expected += response(geometry, d)
    return tuple(power / expected)
