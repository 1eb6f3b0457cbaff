"""Tests and intervals: F tests, their power, weighted Holm.

A complex amplitude θ with c real degrees of freedom and E|θ̂ - θ|² = V obeys |θ̂|²/V ~ F(c, d, λ)
with noncentrality λ = c·|θ|²/V, where d counts the degrees of freedom behind V (d → ∞: noncentral
χ²).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
SIGNIFICANT = 0.05
Z_POWER = 1.2816  # normal quantile of 90 % power
Z_95 = 1.959964
DB_PER_NEPER = 10 / math.log(10)
TINY = 1e-300
LARGE = 1e3  # beyond this noncentral χ² is normal to 0.1 %
MOST_T = 1e3  # quantile of t where one cluster outweighs all others


def f_test(power: ArrayLike, variance: ArrayLike, c: ArrayLike, df: ArrayLike) -> Values:
    """Probability that noise alone gives |θ̂|² as large as `power`; 1 where there is no variance."""
    from scipy.special import fdtrc

    power, variance = np.broadcast_arrays(np.asarray(power, float), np.asarray(variance, float))
    ratio = np.divide(power, variance, out=np.zeros(power.shape), where=variance > 0)
    return fdtrc(c, np.maximum(df, 1e-3), ratio)


def critical(variance: ArrayLike, c: ArrayLike, df: ArrayLike, p: ArrayLike) -> Values:
    """|θ̂|² that is just significant at raw `p`."""
    from scipy.special import fdtri

    return fdtri(c, np.maximum(df, 1e-3), 1 - np.asarray(p)) * variance


def weighted_holm(p_values: ArrayLike, weights: ArrayLike) -> Values:
    """Adjust p-values by Holm's step-down method with weights of any sum; order is kept.

    The family-wise error holds under any dependence (Holm 1979, section 4).
    """
    p, w = np.asarray(p_values, float), np.asarray(weights, float)
    order = np.argsort(p / w)
    remaining = np.cumsum(w[order][::-1])[::-1]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] / w[order] * remaining), 1)
    return adjusted


def bounds(power: ArrayLike, variance: ArrayLike, c: ArrayLike, df: ArrayLike):
    """95 % bounds (low, high) of |θ|², by inverting the noncentral χ²_c.

    The variance is itself an estimate, which widens the bounds by the ratio of the quantiles of t
    and normal. The upper bound is never below that of a median reading of noise alone: a smaller
    reading is luck.
    """
    from scipy.special import chdtri, chndtrinc, stdtrit

    wide = np.minimum(stdtrit(np.maximum(df, 0.5), 0.975), MOST_T) / Z_95
    variance = np.maximum(np.asarray(variance, float) * wide**2, TINY)
    x = c * np.asarray(power, float) / variance
    low = np.nan_to_num(chndtrinc(np.minimum(x, LARGE), c, 0.975))
    high = np.nan_to_num(chndtrinc(np.clip(x, chdtri(c, 0.5), LARGE), c, 0.025))
    far = np.sqrt(x)
    low = np.where(x < LARGE, np.where(low < 1e-9, 0, low), np.maximum(far - Z_95, 0) ** 2)
    return low * variance / c, np.where(x < LARGE, high, (far + Z_95) ** 2) * variance / c


def welch_df(variance_a: Values, df_a: Values, variance_b: Values, df_b: Values) -> Values:
    """Degrees of freedom behind the sum of two variances (Welch-Satterthwaite)."""
    total = variance_a**2 / df_a + variance_b**2 / df_b
    return (variance_a + variance_b) ** 2 / np.maximum(total, TINY)


def kish(weights: Values) -> float:
    """Effective number of values with these weights, (Σw)²/Σw²."""
    return float(weights.sum() ** 2 / max((weights**2).sum(), TINY))


def decibels(power: float) -> float | None:
    """10·log10(power), or None where there is no power."""
    return float(10 * np.log10(power)) if power > 0 else None
