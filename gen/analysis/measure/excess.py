"""Excess: incoherent power at a line over that around it, as patterns of changing sign leave it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .amplitude import Moments
from .statistics import TINY, Values, f_test, welch_df
from .tiles import AxialShifts


@dataclass(frozen=True)
class Excess:
    """ln of the power at a line over that at shifts along the axes (C, L), in nepers of power.

    `variance` with `df` is that over images, `spread` with `spread_df` that over shifts.
    `looks` is the number of such values of which this is the clearest: p is multiplied by it.
    """

    value: Values
    variance: Values
    df: Values
    spread: Values
    spread_df: Values
    alive: NDArray[np.bool_]
    looks: int = 1

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
        half = self.two_sided / 2
        p = np.where(self.alive, np.where(self.value > 0, half, 1 - half), 1.0)
        return np.minimum(self.looks * p, 1)

    def minus(self, other: Excess) -> Excess:
        """The difference of two independent sets."""
        df = welch_df(self.variance, self.df, other.variance, other.df)
        spread, alive = self.spread + other.spread, self.alive & other.alive
        value, variance = self.value - other.value, self.variance + other.variance
        return Excess(value, variance, df, spread, self.spread_df, alive)


def clearer(a: Excess, b: Excess) -> Excess:
    """At each line the one with the smaller p."""
    first = a.p_value <= b.p_value
    names = [field.name for field in dataclasses.fields(Excess) if field.name != "looks"]
    chosen = {name: np.where(first, getattr(a, name), getattr(b, name)) for name in names}
    return Excess(**chosen, looks=a.looks + b.looks)


def solve_excess(
    axial: AxialShifts, moments: Moments, power: Values, rows, fitted, second: Values, alive
) -> Excess:
    """Excess of some lines of a tiling; power that line and replica add is taken out.

    `rows` are the indices of the lines, `moments` those of the powers that `axial` compares, and
    `power` (C, L, 1 + A) their sums by shift; `fitted` a, g, m̄ of eq. (4) at the lines (C, L),
    `second` the second moments (C, L, 7, 7) of the same terms.
    """
    first, cross, _ = moments.arrays(rows)
    own, around = np.maximum(np.moveaxis(first, -1, 0), 1e-60)
    total = second[..., 3, 3] + second[..., 4, 4]
    coherent = np.maximum(total - _residual_power(second, *fitted), 0)
    # Images are sums over their blocks, whose powers make up `own`: their coherent part is less.
    left = np.maximum(own - coherent * np.clip(own / np.maximum(total, TINY), 0, 1), 1e-3 * own)
    n = np.maximum(around**2 / np.maximum(cross[..., 1, 1], TINY), 1.5)
    variance = cross[..., 0, 0] / own**2 - 2 * cross[..., 0, 1] / (own * around)
    variance = np.maximum((variance + cross[..., 1, 1] / around**2) * n / (n - 1), TINY)
    logs = np.log(np.maximum(power[:, rows, 1:] / axial.responses, TINY))
    use = axial.own[rows]
    count = use.sum(-1)
    mean = (logs * use).sum(-1, keepdims=True) / np.maximum(count, 1)[:, None]
    # The mean of both signs halves the variance of a shift.
    spread = 2 * (use * (logs - mean) ** 2).sum(-1) / np.maximum(count - 1, 1)
    df = 2 * np.maximum(count - 1, 0)
    value = np.log(left / around)
    if axial.even:  # what leaves power at one shift, such as a stripe, can leave it at the line
        value = value - np.where(use, logs - mean, 0).max(-1)
        alive = alive & (count > 1)
    return Excess(value, variance, n - 1, spread, df, alive)


def _residual_power(second: Values, a, g, mean) -> Values:
    """Σ over images of |Σ u(z - a - g(m - m̄))|² (C, L)."""
    J = np.zeros((*a.shape, 2, 7))
    for part, (va, vg) in enumerate(((a.real, g.real), (a.imag, g.imag))):
        J[..., part, 0], J[..., part, 1], J[..., part, 3 + part] = vg * mean - va, -vg, 1
    return np.trace(J @ second @ np.swapaxes(J, -1, -2), axis1=-2, axis2=-1)
