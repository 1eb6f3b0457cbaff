"""The tests and intervals of the measurement: F-tests, their power, Holm's correction.

A complex amplitude θ with c real degrees of freedom and E|θ̂ - θ|² = V obeys |θ̂|²/V ~ F(c, d, λ)
with noncentrality λ = c·|θ|²/V, where d counts the degrees of freedom behind V (d → ∞: noncentral
χ²).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
POWER = 0.9
DB_PER_NEPER = 10 / math.log(10)
FLOOR = 1e-100
LARGE = 1e3  # beyond this noncentral χ² is normal to 0.1 %


def f_test(power: ArrayLike, variance: ArrayLike, c: ArrayLike, df: ArrayLike) -> Values:
    """Probability that noise alone gives |θ̂|² as large as `power`; 1 where there is no variance."""
    from scipy.special import fdtrc

    power, variance = np.asarray(power, float), np.asarray(variance, float)
    ratio = np.divide(power, variance, out=np.zeros_like(power), where=variance > 0)
    return fdtrc(c, df, ratio)


def noncentrality(ratio: ArrayLike, c: ArrayLike, df: ArrayLike, probability: float) -> Values:
    """Solve P(F'(c, df, λ) ≤ ratio) = probability for λ ≥ 0; 0 where even λ = 0 lies below."""
    from scipy.special import ncfdtrinc

    ratio, c, df = np.broadcast_arrays(*(np.asarray(v, float) for v in (ratio, c, df)))
    solved = np.array(ncfdtrinc(c, df, probability, ratio), ndmin=1)
    beyond = ~(solved < 9999)  # where scipy's search ends
    solved[beyond] = _large(*(np.atleast_1d(v)[beyond] for v in (ratio, c, df)), probability)
    return solved.reshape(ratio.shape)


def _large(ratio: Values, c: Values, df: Values, probability: float) -> Values:
    """Noncentrality when it is large: √(c·ratio·S) = √λ + z, S ~ χ²_df/df, z standard normal.

    The probability is averaged over 64 equal shares of S and bisected.
    """
    from scipy.special import gammaincinv, ndtr

    shares = gammaincinv(df[..., None] / 2, (np.arange(64) + 0.5) / 64) * 2 / df[..., None]
    reach = np.sqrt(c * ratio)[..., None] * np.sqrt(shares)
    low, high = np.zeros(ratio.shape), reach.max(-1, initial=0) + 8
    for _ in range(50):
        middle = (low + high) / 2
        above = ndtr(reach - middle[..., None]).mean(-1) > probability
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return low**2


def t_quantile(df: ArrayLike) -> Values:
    """97.5 % quantile of Student's t, at most 10⁶: an interval so wide says "anything", finitely.

    Where one image outweighs all others together, df is nearly 0 and the quantile overflows.
    """
    from scipy.special import stdtrit

    return np.minimum(stdtrit(df, 0.975), 1e6)


def interval(power: ArrayLike, variance: ArrayLike, c: ArrayLike, df: ArrayLike) -> list[Values]:
    """Bound |θ| at 95 % by inverting the noncentral χ²_c of c·|θ̂|²/V: [low, high].

    That the variance itself is an estimate widens it by the ratio of the quantiles of t and normal.
    The upper bound is never below that of a median reading of mere noise: a reading of nearly zero
    is luck, and tells no more.
    """
    from scipy.special import chdtri, chndtrinc

    power, variance, c, df = np.broadcast_arrays(
        *(np.asarray(v, float) for v in (power, variance, c, df))
    )
    wide = np.maximum(variance * (t_quantile(df) / 1.959964) ** 2, FLOOR)
    reach = c * power / wide
    bounds = []
    for probability, sign in ((0.975, -1), (0.025, 1)):
        read = reach if sign < 0 else np.maximum(reach, chdtri(c, 0.5))
        exact = np.nan_to_num(chndtrinc(np.minimum(read, LARGE), c, probability))
        exact = np.sqrt(np.where(exact < FLOOR, 0, exact))
        normal = np.sqrt(reach) + sign * 1.959964
        bounds.append(np.where(reach < LARGE, exact, normal) * np.sqrt(wide / c))
    return bounds


def detectable(
    variance: ArrayLike, c: ArrayLike, df: ArrayLike, tests: int, level: float
) -> Values:
    """Smallest |θ|² that is found with 90 % power among `tests` simultaneous tests at `level`."""
    from scipy.special import fdtri

    critical = fdtri(c, df, 1 - level / max(tests, 1))
    return noncentrality(critical, c, df, 1 - POWER) * np.asarray(variance) / np.asarray(c)


def holm(p_values: ArrayLike) -> Values:
    """Adjust p-values for their number by Holm's step-down method (Holm 1979); order is kept."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    steps = p[order] * (len(p) - np.arange(len(p)))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def welch_df(variance_a: Values, df_a: Values, variance_b: Values, df_b: Values) -> Values:
    """Degrees of freedom behind the sum of two variances (Welch-Satterthwaite)."""
    total = variance_a**2 / df_a + variance_b**2 / df_b
    return np.divide(
        (variance_a + variance_b) ** 2, total, out=np.ones_like(total), where=total > 0
    )


def decibels(power: float) -> float | None:
    """Return 10·log10(power), or None where there is no power."""
    return float(10 * np.log10(power)) if power > 0 else None
