"""The estimator as its equations say it, tile by tile in float64: slow, and what tests trust.

One plane, one period, no blocks. Every function is one equation of the method; nothing is shared
with the fast path but the list of lattice lines.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Steps = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Tiles of `side` pixels with a frequency grid of 2/side, at `rows` × `columns`."""

    side: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def grid(self) -> int:
        """Frequencies are whole numbers of steps of 1/grid."""
        return self.side // 2

    @property
    def origins(self) -> list[Steps]:
        """All tiles (y, x)."""
        return [(y, x) for y in self.rows for x in self.columns]

    @property
    def span(self) -> tuple[int, int]:
        """Pixels from the first tile's start to the last one's end."""
        return self.rows[-1] + self.side, self.columns[-1] + self.side


def window(side: int) -> Values:
    """Periodic Hann window of sum 1."""
    n = np.arange(side)
    return (1 - np.cos(2 * np.pi * n / side)) / side


def local_spectrum(image: Values, geometry: Geometry, k: Steps) -> NDArray[np.complex128]:
    """z_t(k) of every tile, eq. (1); phases refer to the image's origin."""
    w = np.outer(window(geometry.side), window(geometry.side))
    out = []
    for y, x in geometry.origins:
        ny, nx = np.arange(y, y + geometry.side), np.arange(x, x + geometry.side)
        wave = np.exp(-2j * np.pi * np.add.outer(k[0] * ny, k[1] * nx) / geometry.grid)
        out.append((w * image[y : y + geometry.side, x : x + geometry.side] * wave).sum())
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
    residuals: tuple[NDArray[np.complex128], ...]  # u(z - a - g(m - m̄)) by image
    centered: tuple[Values, ...]  # m - m̄ by image


def solve(images: Sequence[Values], geometry: Geometry, k: Steps) -> Solution:
    """Line and replica at k of images (H, W) in gray levels minus 127.5."""
    z = [local_spectrum(image, geometry, k) for image in images]
    m = [local_spectrum(image, geometry, (0, 0)).real for image in images]
    u = [weights(noise(image, geometry, k), geometry.side) for image in images]
    U = sum(map(np.sum, u))
    mean = sum((p * q).sum() for p, q in zip(u, m, strict=True)) / U
    centered = [q - mean for q in m]
    D = sum((p * q**2).sum() for p, q in zip(u, centered, strict=True))
    a = sum((p * r).sum() for p, r in zip(u, z, strict=True)) / U
    g = sum((p * q * r).sum() for p, q, r in zip(u, centered, z, strict=True)) / D
    rest = [r - a - g * q for r, q in zip(z, centered, strict=True)]
    s_a = [(p * (r - a)).sum() / U for p, r in zip(u, z, strict=True)]
    s_g = [(p * q * e).sum() / D for p, q, e in zip(u, centered, rest, strict=True)]
    share = np.array([p.sum() for p in u]) ** (2 / 3)
    a_n = share.sum() ** 2 / (share**2).sum()
    leverage = np.array([(p * q**2).sum() for p, q in zip(u, centered, strict=True)])
    g_n = leverage.sum() ** 2 / (leverage**2).sum()
    return Solution(
        a=a,
        g=g,
        a_variance=float((np.abs(s_a) ** 2).sum() * a_n / (a_n - 1)),
        g_variance=float((np.abs(s_g) ** 2).sum() * g_n / (g_n - 1)),
        a_n=a_n,
        g_n=g_n,
        U=U,
        D=D,
        residuals=tuple(p * e for p, e in zip(u, rest, strict=True)),
        centered=tuple(centered),
    )


def placebo(
    solution: Solution, geometry: Geometry, d: tuple[float, float]
) -> tuple[complex, complex]:
    """Line and replica of the residuals at a shift d in cycles per pixel (§ 3)."""
    turn = np.exp(-2j * np.pi * (np.array(geometry.origins) @ d))
    line = sum((r * turn).sum() for r in solution.residuals) / solution.U
    pairs = zip(solution.residuals, solution.centered, strict=True)
    return line, sum((r * q * turn).sum() for r, q in pairs) / solution.D


def response(geometry: Geometry, d: tuple[float, float]) -> float:
    """R(d), eq. (5), from the sum of all shifted windows, pixel by pixel."""
    height, width = geometry.span
    w = np.outer(window(geometry.side), window(geometry.side))
    total, moved = np.zeros((height, width)), np.zeros((height, width), complex)
    for y, x in geometry.origins:
        place = np.s_[y : y + geometry.side, x : x + geometry.side]
        total[place] += w
        moved[place] += w * cmath.exp(-2j * math.pi * (d[0] * y + d[1] * x))
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
