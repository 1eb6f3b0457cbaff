"""An estimated complex amplitude: variance, placebos, p-value, smallest detectable power.

Every amplitude is tested twice and the larger p counts: against the spread over images, and against
placebos, the same estimator at frequencies where no lattice line can be. The placebos keep aligned
sets (faces, digits, watermarks: their mean image is not flat) from false alarms.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .statistics import TINY, Values, critical, f_test, welch_df

AXIS_PRIOR = 2.0  # an axis has few placebos: so many more are presumed


@dataclass
class Moments:
    """Sums over clusters of r terms and of their products, by plane and frequency (C, K, …).

    `kish` (2, C, K) holds Σq and Σq² of q = U^(2/3), the leverage of a cluster on a line.
    """

    first: Tensor
    second: Tensor
    kish: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Moments of the sums (r, K, C, n) of n clusters."""
        v = values.permute(2, 1, 0, 3).contiguous()
        q = v[:, :, 0].clamp(min=0).pow(2 / 3)
        return cls(v.sum(-1), v @ v.mT, torch.stack([q.sum(-1), (q * q).sum(-1)]))

    def arrays(self, rows=slice(None)) -> tuple[Values, Values, Values]:
        """All three at some frequencies, as arrays."""
        parts = self.first[:, rows], self.second[:, rows], self.kish[:, :, rows]
        return tuple(part.cpu().numpy() for part in parts)


@dataclass(frozen=True)
class Placebos:
    """The estimator where no line can be: values (C, L, M) and the variance expected of each.

    The variance is infinite where too few tiles are alive to estimate it; these are left out.
    `response` (L, M) is the share of white noise that is left there, R(d) of eq. (5); 0 where a
    placebo does not belong to a line. `on_axis` (L, M) marks those on the axis of an axis line.
    `worth` (L,) and `axis_worth` (L,) count the independent values; both are 0 where there is none.
    """

    value: NDArray[np.complex128]
    variance: Values
    response: Values
    on_axis: NDArray[np.bool_]
    worth: Values
    axis_worth: Values

    @functools.cached_property
    def ratio(self) -> tuple[Values, Values]:
        """r and its degrees of freedom (C, L): mean |θ_d|²/V over what white noise leaves, § 3.

        An axis line takes the larger of all its placebos and those on its axis.
        """
        power = np.abs(self.value) ** 2 / np.maximum(self.variance, TINY)

        def mean(share: Values) -> Values:
            share = share * np.isfinite(self.variance)
            return (power * (share > 0)).sum(-1) / np.maximum(share.sum(-1), TINY)

        ratio = np.maximum(mean(self.response), mean(self.response * self.on_axis))
        few = np.minimum(self.axis_worth + AXIS_PRIOR, self.worth)
        count = np.where(self.axis_worth > 0, few, self.worth)
        return np.where(self.worth > 0, ratio, 1.0), np.broadcast_to(2 * count, ratio.shape)


@dataclass(frozen=True)
class Amplitude:
    """Estimate θ̂ (C, L) by plane and line: gray levels (line), gain (replica), depth (trace).

    `covariance` (C, L, 2, 2) is that of (Re, Im), clustered by image, `n` the effective number of
    clusters, `c` (L,) the degrees of freedom of an amplitude. Where no tile is `alive` around a
    line the rest means nothing.
    """

    value: NDArray[np.complex128]
    covariance: Values
    n: Values
    c: Values
    alive: NDArray[np.bool_]
    placebos: Placebos

    @property
    def variance(self) -> Values:
        """V = E|θ̂ - θ|²."""
        return trace_of(self.covariance)

    @property
    def power(self) -> Values:
        """|θ̂|², not debiased."""
        return np.abs(self.value) ** 2

    @property
    def df(self) -> Values:
        """Degrees of freedom of V."""
        return self.c * (self.n - 1)

    def ratio(self) -> tuple[Values, Values]:
        """Placebo ratio r and its degrees of freedom (C, L)."""
        return self.placebos.ratio

    @property
    def noise(self) -> Values:
        """V·max(1, r)."""
        return self.variance * np.maximum(self.ratio()[0], 1)

    @property
    def noise_df(self) -> Values:
        """Degrees of freedom of the noise."""
        ratio, df = self.ratio()
        return np.where(ratio > 1, np.minimum(self.df, np.maximum(df, 1)), self.df)

    @property
    def p_value(self) -> Values:
        """The larger p of the test by images and the test by placebos; 1 where nothing is alive."""
        ratio, df = self.ratio()
        p = f_test(self.power, self.variance, self.c, self.df)
        by_placebos = f_test(self.power, self.variance * ratio, self.c, df)
        return np.where(self.alive, np.where(df > 0, np.maximum(p, by_placebos), p), 1.0)

    def critical(self, p: Values | float) -> Values:
        """|θ̂|² that both tests find at raw `p`."""
        ratio, df = self.ratio()
        by_images = critical(self.variance, self.c, self.df, p)
        by_placebos = critical(self.variance * ratio, self.c, df, p)
        return np.where(df > 0, np.maximum(by_images, by_placebos), by_images)

    def minus(self, other: Amplitude) -> Amplitude:
        """The difference of two independent sets; its placebos are differences as well."""
        a, b = self.placebos, other.placebos
        belonging = a.response, a.on_axis, a.worth, a.axis_worth
        placebos = Placebos(a.value - b.value, a.variance + b.variance, *belonging)
        n = welch_df(self.variance, self.df, other.variance, other.df) / self.c + 1
        value, covariance = self.value - other.value, self.covariance + other.covariance
        return Amplitude(value, covariance, n, self.c, self.alive & other.alive, placebos)


def sandwich(scores: Values, second: Values, n: Values) -> Values:
    """Covariance (…, 2, 2) from scores (…, 2, r) and second moments (…, r, r): J M₂ Jᵀ·n/(n - 1).

    n is the effective number of clusters (§ 2, Variance).
    """
    return scores @ second @ np.swapaxes(scores, -1, -2) * (n / (n - 1))[..., None, None]


def trace_of(covariance: Values) -> Values:
    """V of covariances (…, 2, 2)."""
    return np.maximum(np.trace(covariance, axis1=-2, axis2=-1), TINY)
