"""Level: the power of a period's pattern over the whole image, relative to the image's contrast.

The *pattern* is what all images share at the lines of a period: a part of constant strength and a
part proportional to brightness. Its local amplitude at pixel brightness x is a + g(x - x̄), so its
power over all pixels of all images is |a|² + |g|²S², S² = mean (x - x̄)², and the level is

    Σ_lines c (|a|² + |g|²S²) / σ²,    σ² the mean spatial variance,                         (6)

a and g are the *even* estimates, in which all tiles count alike. The weights of eq. (3) find a
pattern where it is easiest to see, so a weighted amplitude says how strong it is there.

How the number misleads: a pattern that covers a share f of the area, whatever the brightness there,
has the mean amplitude f, so it reads 10·log10 f below its own power (half of the area: -3 dB). A
sign that changes from image to image cancels; the excess sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .statistics import bounds

Values = NDArray[np.float64]
EVIDENCE = 0.2  # a line of this p counts half
CHANCE = 0.05
# Levels in dBc from which a pattern is called so.
SEVERITIES = (
    (-20.0, "visible"),
    (-40.0, "visible on flat areas"),
    (-np.inf, "for instruments only"),
)


@dataclass(frozen=True)
class Part:
    """Even estimates θ̂ of one statistic (line or replica) at the lines of a period, by plane.

    Attributes:
        power: |θ̂|² (C, L), not debiased.
        noise: V' = V·max(1, r) (C, L): what |θ̂|² is on average where there is no pattern.
        df: Degrees of freedom (C, L) of the noise.
        c: (L,) 1 where an amplitude is real, else 2, one for each line of the conjugate pair.
        share: (C, 1) what turns |θ|² into power over the contrast: 1/σ² for a, S²/σ² for g.
        p: Raw p-values (C, L) of the weighted or the even estimate, whichever is clearer.
    """

    power: Values
    noise: Values
    df: Values
    c: Values
    share: Values
    p: Values


@dataclass(frozen=True)
class Level:
    """Power over the contrast: the total with its 95 % interval, and the parts of both statistics.

    `low` ≤ `total` ≤ `high`; `low` is 0 where the even tiles alone do not show a pattern.
    """

    total: float
    low: float
    high: float
    replica: float
    line: float


def level(line: Part, replica: Part) -> Level:
    """Level of one period, the mean over planes.

    Each line enters with the positive part of its debiased power, weighed by the evidence for it,

        Σ c·share·max(|θ̂|² - V', 0) / (1 + p/0.2),                                               (7)

    which is continuous: no test decides which lines are summed. The weight keeps the noise of lines
    without a pattern, which can be 20 dB above a pattern on another line, out of the sum.

    The interval does not use the weights: it adds up what could be hidden in any line, by the
    method of variance estimates recovery. With q̂ = c·share·(|θ̂|² - V') and the bounds l, u of the
    power of each line,

        low = Σq̂ - √Σ max(q̂ - l, q₀)²,    high = Σq̂ + √Σ(u - q̂)²,                                (8)

    where q₀ is what chance adds to a line without power in 1 of 20 sets: near zero l stops at 0 and
    would understate how far a reading lies above its power.
    Graybill and Wang, JASA 75, 1980; Zou and Donner, Statistics in Medicine 27, 2008.
    """
    from scipy.special import chdtri

    sums = {}
    center = below = above = 0.0
    for name, part in (("line", line), ("replica", replica)):
        scale = part.share * part.c
        reading = scale * (part.power - part.noise)
        low, high = (scale * v for v in bounds(part.power, part.noise, part.c, part.df))
        sums[name] = (np.maximum(reading, 0) / (1 + part.p / EVIDENCE)).sum(-1)
        center = center + reading.sum(-1)
        chance = scale * part.noise * (chdtri(part.c, CHANCE) / part.c - 1)
        below = below + (np.maximum(reading - low, chance) ** 2).sum(-1)
        above = above + (np.maximum(high - reading, 0) ** 2).sum(-1)
    total = sums["line"] + sums["replica"]
    low = np.clip(center - np.sqrt(below), 0, total)
    high = np.maximum(center + np.sqrt(above), total)
    # Planes share their noise, so their bounds are averaged and not added up like errors.
    return Level(
        total=float(total.mean()),
        low=float(low.mean()),
        high=float(high.mean()),
        replica=float(sums["replica"].mean()),
        line=float(sums["line"].mean()),
    )


def severity(level_dbc: float) -> str:
    """The level of a detected period in words."""
    return next(words for least, words in SEVERITIES if level_dbc >= least)
