"""Excess: incoherent power at a line over that around it, as patterns of changing sign leave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .statistics import TINY, f_test, welch_df
from .sums import TilingSums, own_shifts
from .tiles import Tiling

if TYPE_CHECKING:
    from .estimates import Fit

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Excess:
    """ln of the power at a line over that at shifts along the axes (C, L), in nepers of power.

    `variance` with `df` is that over images, `spread` with `spread_df` (L,) that over shifts.
    """

    value: Values
    variance: Values
    df: Values
    spread: Values
    spread_df: Values
    alive: NDArray[np.bool_]

    @property
    def two_sided(self) -> Values:
        """The larger p of the spread over images and the spread over shifts."""
        p = f_test(self.value**2, self.variance, 1, self.df)
        by_shifts = f_test(self.value**2, self.spread, 1, self.spread_df)
        p = np.where(self.spread_df > 0, np.maximum(p, by_shifts), p)
        return np.where(self.alive, p, 1.0)

    @property
    def p_value(self) -> Values:
        """p of power above that around the line."""
        p = self.two_sided
        return np.where(self.alive & (self.value <= 0), 1 - p / 2, np.where(self.alive, p / 2, 1))

    def pick(self, columns: list[int]) -> Excess:
        """The excess of some lines."""
        values = (self.value, self.variance, self.df, self.spread)
        value, variance, df, spread = (v[:, columns] for v in values)
        return Excess(value, variance, df, spread, self.spread_df[columns], self.alive[:, columns])

    def minus(self, other: Excess) -> Excess:
        """The difference of two independent sets."""
        return Excess(
            self.value - other.value,
            self.variance + other.variance,
            welch_df(self.variance, self.df, other.variance, other.df),
            self.spread + other.spread,
            self.spread_df,
            self.alive & other.alive,
        )


def solve_excess(tiling: Tiling, sums: TilingSums, found: Fit, alive) -> Excess:
    """Excess of the lines of one tiling; power that grid and replica add is taken out."""
    at = tiling.at.cpu().numpy()
    first, cross = (v.cpu().numpy() for v in (sums.excess.first, sums.excess.second))
    raw = sums.weighted.second.cpu().numpy()[:, at]
    own, around = np.maximum(np.moveaxis(first, -1, 0), 1e-60)
    total = raw[..., 3, 3] + raw[..., 4, 4]
    coherent = np.maximum(total - _residual_power(raw, found, at), 0)
    # Images are sums over their blocks, whose powers make up `own`: their coherent part is less.
    left = np.maximum(own - coherent * np.clip(own / np.maximum(total, TINY), 0, 1), 1e-3 * own)
    value = np.log(left / around)
    n = np.maximum(around**2 / np.maximum(cross[..., 1, 1], TINY), 1.5)
    variance = cross[..., 0, 0] / own**2 - 2 * cross[..., 0, 1] / (own * around)
    variance = (variance + cross[..., 1, 1] / around**2) * n / (n - 1)
    spread, count = _spread(tiling, sums.pairs.cpu().numpy())
    return Excess(value, np.maximum(variance, TINY), n - 1, spread, 2 * (count - 1), alive)


def _residual_power(second: Values, found: Fit, at) -> Values:
    """Σ over images of |Σ u(z - a - g(m - m̄))|² (C, L) from the second moments."""
    a, g, mean = found.a[:, at], found.g[:, at], found.mean[:, at]
    J = np.zeros((*a.shape, 2, 7))
    for part, (va, vg) in enumerate(((a.real, g.real), (a.imag, g.imag))):
        J[..., part, 0], J[..., part, 1], J[..., part, 3 + part] = vg * mean - va, -vg, 1
    return np.trace(J @ second @ np.swapaxes(J, -1, -2), axis1=-2, axis2=-1)


def _spread(tiling: Tiling, pairs: Values) -> tuple[Values, Values]:
    """Variance of ln |s_d|²/R over a line's shifts (C, L), and their number (L,)."""
    logs = np.log(np.maximum(pairs / tiling.axial_responses, TINY))
    use = own_shifts(tiling)
    count = use.sum(-1)
    mean = (logs * use).sum(-1) / np.maximum(count, 1)
    squares = (use * (logs - mean[..., None]) ** 2).sum(-1)
    # The mean of both signs halves the variance of a shift.
    return 2 * squares / np.maximum(count - 1, 1), np.maximum(count, 1)
