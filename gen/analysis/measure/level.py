"""Level: the power of a period's pattern over the whole image, relative to the image's contrast.

The weights of eq. (3) favor quiet tiles, so the weighted amplitude describes the pattern where it
shows best. The level means whole images: it moves from the weighted amplitude to the even one (all
tiles that carry signal count alike) as far as the two differ by more than their noise. Every line
is then shrunk continuously toward zero, so no test decides which lines make up the level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .estimates import Amplitude, Estimates
from .statistics import TINY, bounds, critical

Values = NDArray[np.float64]
# Levels in dBc from which a pattern is called so.
SEVERITIES = (
    (-20.0, "strong"),
    (-35.0, "clear"),
    (-50.0, "faint"),
    (-np.inf, "invisible without amplification"),
)


@dataclass(frozen=True)
class Level:
    """Power over the contrast: total with its 95 % interval, and the parts of both statistics."""

    total: float
    low: float
    high: float
    replica: float
    line: float


def level(e: Estimates, planes: list[int]) -> Level:
    """Level of the lines of one period, the mean over some planes."""
    parts, below, above = {}, 0.0, 0.0
    contrast = np.maximum(e.contrast[planes, None], TINY)
    for name, local, even, share in (
        ("replica", e.replica, e.even_replica, np.ones_like(contrast)),
        ("line", e.line, e.even_line, 1 / contrast),
    ):
        shrunk, low, high = (v[planes] * share * local.c for v in _power(local, even))
        parts[name] = float(shrunk.sum(1).mean())
        below += float(((shrunk - low) ** 2).sum(1).mean())
        above += float(((high - shrunk) ** 2).sum(1).mean())
    total = sum(parts.values())
    return Level(total, max(total - below**0.5, 0.0), total + above**0.5, **parts)


def _power(local: Amplitude, even: Amplitude) -> tuple[Values, Values, Values]:
    """|θ|² (C, L) of whole images, shrunk, and its 95 % bounds; 0 where nothing is alive."""
    ratio = np.maximum(local.ratio()[0], 1)
    near, far = local.variance * ratio, even.variance * ratio
    gap = np.abs(even.value - local.value) ** 2
    moved = np.maximum(1 - (near + far) / np.maximum(gap, TINY), 0)
    noise = (1 - moved) ** 2 * near + moved**2 * far
    power = np.abs(local.value + moved * (even.value - local.value)) ** 2
    df = np.minimum(local.noise_df, even.df)
    threshold = critical(noise, local.c, df, 0.5 / local.value.shape[1])
    shrunk = power * np.maximum(1 - (threshold / np.maximum(power, TINY)) ** 2, 0)
    low, high = bounds(power, noise, local.c, df)
    low, high = np.minimum(low, shrunk), np.maximum(high, shrunk)
    return tuple(np.where(local.alive, v, 0.0) for v in (shrunk, low, high))


def severity(level_dbc: float) -> str:
    """The level of a detected period in words."""
    return next(word for least, word in SEVERITIES if level_dbc >= least)
