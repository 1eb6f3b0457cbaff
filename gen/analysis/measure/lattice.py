"""Lattice lines of a period: the frequencies at which a pattern of that period has power."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

MIN_PERIODS = 6
CLASSES = ("corner", "interior", "axis")


class LatticeLine(NamedTuple):
    """Frequency (a/period, b/period) in cycles per pixel, rows first."""

    period: int
    a: int
    b: int

    @property
    def frequency(self) -> tuple[float, float]:
        """(fy, fx) in cycles per pixel."""
        return self.a / self.period, self.b / self.period

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the complex amplitude: 1 where it is real, else 2."""
        return 1 if 2 * self.a % self.period == 0 == 2 * self.b % self.period else 2

    @property
    def kind(self) -> str:
        """Class of the line: "axis" (rows or columns), "corner" (½, ½), or "interior"."""
        return "axis" if 0 in (self.a, self.b) else "corner" if self.degrees == 1 else "interior"


@functools.cache
def lattice_lines(period: int) -> tuple[LatticeLine, ...]:
    """List the lines of exact period P = lcm(P/gcd(a, P), P/gcd(b, P)), one of each conjugate pair.

    Of the pair ±(a, b) the one in the half plane 0 ≤ b ≤ P/2 is listed, with a ≥ 0 on its borders.
    """
    half, lines = period // 2, []
    for b in range(half + 1):
        for a in range(-((period - 1) // 2), half + 1):
            exact = math.lcm(period // math.gcd(a, period), period // math.gcd(b, period))
            if exact == period and (a >= 0 or 0 < 2 * b < period):
                lines.append(LatticeLine(period, a, b))
    return tuple(lines)


def minimum_size(period: int) -> int:
    """Smallest side in pixels on which a period is measured."""
    return MIN_PERIODS * period
