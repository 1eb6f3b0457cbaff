"""From the sums of one pass to amplitudes with variances and p-values, for every channel and line.

Each estimate θ̂ (gain of the replica, amplitude of the line, depth of the trace) is judged twice
and the larger p counts. The sandwich variance speaks of images as independent draws; the neighbors
are the same estimator at frequencies where no lattice line can stand, which keeps aligned data
(faces, digits: their mean image is not flat) from false alarms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.analysis.measure.lattice import degrees
from gen.analysis.measure.spectrum import RadialProfile, full_plane
from gen.analysis.measure.statistics import f_test
from gen.analysis.measure.sums import TRACES, CropSums
from gen.analysis.measure.tables import DISTANCES

Values = NDArray[np.float64]
# Hann-windowed neighbors are correlated: so many bins carry one independent value.
BINS_PER_VALUE = {"interior": 2.25, "axis": 1.5}
# Of float32, relative to the largest term; healthy sums stand far above it.
ROUNDING = 1e-6
FLOOR = 1e-100


@dataclass(frozen=True)
class Amplitude:
    """Estimate θ̂ per channel and line (C, L), its sandwich variance, and the neighbors' power.

    `variance` is E|θ̂ - θ|² with `df` degrees of freedom; `around` is the mean |θ̂|² at the
    neighbors with `around_df`; `covariance` (C, L, 2, 2) is that of (Re θ̂, Im θ̂).
    """

    value: NDArray[np.complex128]
    covariance: Values
    df: Values
    test_df: Values
    around: Values
    around_df: Values
    c: Values

    @property
    def variance(self) -> Values:
        """Sandwich variance E|θ̂ - θ|²."""
        return np.trace(self.covariance, axis1=-2, axis2=-1)

    @property
    def power(self) -> Values:
        """|θ̂|², not debiased."""
        return np.abs(self.value) ** 2

    @property
    def p_value(self) -> Values:
        """The larger p of the sandwich test and the neighbor test (only the first without any)."""
        sandwich = f_test(self.power, self.variance, self.c, self.test_df)
        neighbors = f_test(self.power, self.around, self.c, np.maximum(self.around_df, 1e-3))
        return np.where(self.around_df > 0, np.maximum(sandwich, neighbors), sandwich)


@dataclass(frozen=True)
class LogRatio:
    """Excess of power at a line over its surroundings in nepers of power (C, L), and its errors."""

    value: Values
    variance: Values
    df: Values
    around: Values
    around_df: Values

    @property
    def p_value(self) -> Values:
        """One-sided: the larger p of the images' spread and of the same fit off the lattice."""
        sandwich = f_test(self.value**2, self.variance, 1, self.df)
        neighbors = f_test(self.value**2, self.around, 1, np.maximum(self.around_df, 1e-3))
        larger = np.where(self.around_df > 0, np.maximum(sandwich, neighbors), sandwich)
        return np.where(self.value > 0, larger / 2, 1 - larger / 2)


@dataclass(frozen=True)
class Estimates:
    """All statistics of one crop: arrays over channels (luma first) and lines."""

    lines: tuple[tuple[int, int, int], ...]  # (period, a, b)
    counted: Values  # (C,) images with signal
    ac_power: Values  # (C,) mean spatial variance
    white: float  # power of one coefficient of white noise of unit variance: Σw²/(Σw)²
    radial: RadialProfile  # of luma
    replica: Amplitude
    line: Amplitude
    excess: LogRatio
    trace: tuple[Amplitude, ...]  # one per variation map


def estimate(crop: CropSums) -> Estimates:
    """Turn the sums of one crop into estimates; channels without signal hold zeros and p = 1."""
    lines = tuple((p, a, b) for p in crop.periods for a, b in crop.lines[p])
    counted = crop.spectrum.sums["count"].numpy()
    line = _line(crop)
    return Estimates(
        lines,
        counted,
        crop.sums["variance"].numpy() / np.maximum(counted, 1),
        float(crop.window.square().sum() / crop.window.sum() ** 2),
        crop.spectrum.profile(0),
        _replica(crop),
        line,
        _excess(crop, line.value),
        tuple(_trace(crop, name, counted) for name in TRACES),
    )


def _around(crop: CropSums, power: Values, first: int, last: int) -> tuple[Values, Values]:
    """Mean of a power map (C, H, W) over each line's neighbors, and its degrees of freedom."""
    means, dfs = [], []
    for (ky, kx), bins in zip(crop.bins[first:last], crop.neighbors[first:last], strict=True):
        kind = "axis" if ky == 0 or kx == 0 else "interior"
        values = power[:, bins[:, 0], bins[:, 1]]
        means.append(values.mean(1) if len(bins) else np.zeros(len(power)))
        dfs.append(2 * len(bins) / BINS_PER_VALUE[kind])
    return np.stack(means, 1), np.array(dfs)


def _degrees(crop: CropSums) -> Values:
    return np.array([degrees(a, p) for p in crop.periods for a in crop.lines[p]], dtype=float)


def _replica(crop: CropSums) -> Amplitude:
    parts, first = [], 0
    for period in crop.periods:
        last = first + len(crop.lines[period])
        parts.append(_replica_of(crop, period, first, last))
        first = last
    joined = [
        np.concatenate(arrays, axis=-1 if arrays[0].ndim < 3 else 1)
        for arrays in zip(*parts, strict=True)
    ]
    return Amplitude(*joined, _degrees(crop))


def _replica_of(crop: CropSums, period: int, first: int, last: int) -> tuple[Values, ...]:
    """Solve the summed normal equations at every shift, then the sandwich on the lattice."""

    products = crop.sums[f"product/{period}"].split([crop.size[0], crop.size[0] // 2 + 1], 1)
    b1, m11 = (torch.fft.fft2(maps, s=crop.size).numpy() for maps in products)
    m11 = m11.real
    b2, m12, m22 = _window_terms(crop)
    # Sums that one image dominates can cancel down to float32 rounding, or below zero.
    m11, m22 = (np.maximum(m, ROUNDING * m.max((-2, -1), keepdims=True)) for m in (m11, m22))
    determinant = np.maximum(m11 * m22 - np.abs(m12) ** 2, ROUNDING * m11 * m22 + FLOOR)
    gain = (b1 * m22 - b2 * m12) / determinant
    # The gain's variance goes with 1/M₁₁, which varies from the neighbors to the line.
    around, around_df = _around(crop, np.abs(gain) ** 2 * m11, first, last)

    ky, kx = (crop.bins[first:last] % crop.size).T
    around = around / np.maximum(m11[:, ky, kx], FLOOR)
    g = gain[:, ky, kx]
    grid = ((b2 * m11 - b1 * m12.conj()) / determinant)[:, ky, kx]
    m11, m12, m22 = (m[:, ky, kx] for m in (m11, m12, m22))
    second = crop.sums["gain"][:, first:last].numpy()
    bread = np.linalg.pinv(_real_form(m11, m12, m22))
    scores = _score_map(g, grid)
    meat = scores @ second @ np.swapaxes(scores, -1, -2)
    covariance = (bread @ meat @ np.swapaxes(bread, -1, -2))[..., :2, :2]

    # Leverage of an image on g once A is fitted: energy of X - cW, c = Σ W*X/v / Σ |W|²/v.
    share = m12.conj() / np.maximum(m22, FLOOR)
    leverage = np.zeros((*g.shape, 9))
    leverage[..., 4], leverage[..., 7] = 1, np.abs(share) ** 2
    leverage[..., 5], leverage[..., 6] = -2 * share.real, 2 * share.imag
    effective = _effective(second, leverage)
    covariance = covariance * (effective / np.maximum(effective - 1, 1e-3))[..., None, None]
    c = np.array([degrees(a, period) for a in crop.lines[period]])
    df = c * np.maximum(effective - 1, 1e-3)
    counted = crop.spectrum.sums["count"].numpy()[:, None]
    test_df = c * np.maximum(counted - 2, 1)
    return g, covariance, df, test_df, around, around_df


def _window_terms(crop: CropSums) -> tuple[Values, ...]:
    """b₂, M₁₂ and M₂₂ at every shift (C, H, W): sums over the taps of W of the moved sums."""
    height, width = crop.size
    pixels = torch.fft.irfft2(torch.view_as_complex(crop.sums["white"]), s=crop.size)
    b2 = torch.fft.fft2(pixels * crop.window).numpy()
    near, far = (np.minimum(np.arange(n), n - np.arange(n)) for n in crop.size)
    plane = crop.sums["weights"].numpy()[:, :, near[:, None], far]  # (C, 1 + 2·taps, H, W)
    m12, m22 = np.zeros_like(b2), np.zeros(b2.shape)
    for t, ((ky, kx), value) in enumerate(zip(crop.taps, crop.tap_values.tolist(), strict=True)):
        moved = np.roll(plane[:, [0, 1 + 2 * t, 2 + 2 * t]], (-ky, -kx), (-2, -1))
        m12 += value * (moved[:, 1] + 1j * moved[:, 2])
        m22 += value**2 * moved[:, 0]
    return b2, m12 / (height * width), m22 / (height * width)


def _real_form(m11: Values, m12: NDArray, m22: Values) -> Values:
    """The 2×2 Hermitian normal matrix as a real 4×4 that acts on (Re g, Im g, Re A, Im A)."""
    real = np.zeros((*m11.shape, 4, 4))
    real[..., 0, 0] = real[..., 1, 1] = m11
    real[..., 2, 2] = real[..., 3, 3] = m22
    real[..., 0, 2] = real[..., 1, 3] = real[..., 2, 0] = real[..., 3, 1] = m12.real
    real[..., 0, 3] = real[..., 3, 0] = -m12.imag
    real[..., 1, 2] = real[..., 2, 1] = m12.imag
    return real


def _score_map(g: NDArray, grid: NDArray) -> Values:
    """Matrix (…, 4, 9) that takes `gain_terms` of one image to its score s = b - Mθ."""
    t = np.zeros((*g.shape, 4, 9))
    t[..., range(4), range(4)] = 1
    t[..., 0, 4], t[..., 0, 5], t[..., 0, 6] = -g.real, -grid.real, grid.imag
    t[..., 1, 4], t[..., 1, 5], t[..., 1, 6] = -g.imag, -grid.imag, -grid.real
    t[..., 2, 5], t[..., 2, 6], t[..., 2, 7] = -g.real, -g.imag, -grid.real
    t[..., 3, 5], t[..., 3, 6], t[..., 3, 7] = -g.imag, g.real, -grid.imag
    return t


def _effective(second: Values, functional: Values) -> Values:
    """Kish's effective number of images, (Σh)²/Σh², for weights h = functional · terms."""
    total = np.einsum("...i,...i->...", functional, second[..., -1])
    square = np.einsum("...i,...ij,...j->...", functional, second, functional)
    return np.maximum(total**2 / np.maximum(square, FLOOR), 1.0)


def _coherent(
    crop: CropSums,
    mean: Tensor,
    second: Tensor,
    total: Values,
    scale: float,
    noise: Values | None = None,
) -> Amplitude:
    """Weighted mean of complex coefficients over images: value, sandwich, neighbors.

    With `noise` (C, H, W), the power that independent images would leave in the mean, neighbors are
    judged relative to it, and its background at the line gives back the scale.
    """
    total = np.maximum(total, FLOOR)
    everywhere = torch.fft.fft2(mean).numpy() / (scale * total[:, None, None])
    power = np.abs(everywhere) ** 2
    if noise is not None:
        power = power / np.maximum(noise, FLOOR)
    around, around_df = _around(crop, power, 0, len(crop.bins))
    if noise is not None:
        half = noise[..., : crop.size[1] // 2 + 1].reshape(len(noise), -1)
        around = around * np.exp(_background(half[:, crop.stencils.numpy()]))
    ky, kx = (crop.bins % crop.size).T
    value, moments = everywhere[:, ky, kx], second.numpy()
    residual = np.zeros((*value.shape, 2, 3))
    residual[..., 0, 0] = residual[..., 1, 1] = 1
    residual[..., 0, 2], residual[..., 1, 2] = -value.real, -value.imag
    meat = residual @ moments @ np.swapaxes(residual, -1, -2)
    effective = np.maximum(total[:, None] ** 2 / np.maximum(moments[..., 2, 2], FLOOR), 1.0)
    inflate = effective / np.maximum(effective - 1, 1e-3) / total[:, None] ** 2
    c = _degrees(crop)
    df = c * np.maximum(effective - 1, 1e-3)
    counted = crop.spectrum.sums["count"].numpy()[:, None]
    test_df = c * np.maximum(counted - 1, 1)
    covariance = meat * inflate[..., None, None]
    return Amplitude(value, covariance, df, test_df, around, around_df, c)


def _line(crop: CropSums) -> Amplitude:
    window = float(crop.window.sum())
    weight = crop.sums["weight"].numpy()
    noise = full_plane(crop.sums["noise"].numpy(), crop.size[1])
    return _coherent(crop, crop.sums["mean"], crop.sums["line"], weight, window, noise)


def _trace(crop: CropSums, name: str, counted: Values) -> Amplitude:
    mean = crop.sums[f"trace/{name}"] * crop.window
    return _coherent(crop, mean, crop.sums[f"depth/{name}"], counted, 1.0)


def _excess(crop: CropSums, line: NDArray[np.complex128]) -> LogRatio:
    """ln of the incoherent power at a line over the quadratic through its neighbor pairs."""
    counted = np.maximum(crop.spectrum.sums["count"].numpy(), 1)[:, None]
    power = crop.spectrum.sums["power"].numpy().reshape(len(counted), -1)
    mean = np.maximum(power[:, crop.stencils.numpy()] / counted[..., None], FLOOR)
    coherent = np.abs(line) ** 2 * float(crop.window.sum()) ** 2
    at_line = np.maximum(mean[..., 0] - coherent, 1e-3 * mean[..., 0])
    value = np.log(at_line) - _background(mean)

    weights = -intercept_weights().repeat(4) / 4
    influence = np.concatenate([1 / at_line[..., None], weights / mean[..., 1:]], -1)
    second = crop.sums["excess"].numpy() / counted[..., None, None]
    spread = second - mean[..., :, None] * mean[..., None, :]
    variance = np.einsum("...i,...ij,...j->...", influence, spread, influence)
    variance = np.maximum(variance, 0) / np.maximum(counted - 1, 1)
    around, around_df = _placebo(crop)
    return LogRatio(value, variance, counted - 1, around, around_df)


def _background(power: Values) -> Values:
    """ln of the power (…, 1 + 12) at a line as the quadratic through its neighbor pairs has it."""
    logs = np.log(np.maximum(power[..., 1:], FLOOR))
    return logs @ (intercept_weights().repeat(4) / 4)


def intercept_weights() -> Values:
    """Weights on distances 2, 3, 4 that give the intercept of the least-squares a + b·d²."""
    design = np.stack([np.ones(len(DISTANCES)), np.square(DISTANCES, dtype=float)], 1)
    return np.linalg.pinv(design)[0]


def _placebo(crop: CropSums) -> tuple[Values, Values]:
    """Typical squared excess at the neighbors: median, as some of them border on a line."""
    logs = np.log(np.maximum(full_plane(crop.spectrum.mean(), crop.size[1]), FLOOR))
    pairs = [
        sum(
            w * (np.roll(logs, d, axis) + np.roll(logs, -d, axis)) / 2
            for w, d in zip(intercept_weights(), DISTANCES, strict=True)
        )
        for axis in (-2, -1)
    ]
    squares = {
        "interior": (logs - (pairs[0] + pairs[1]) / 2) ** 2,
        "y": (logs - pairs[0]) ** 2,
        "x": (logs - pairs[1]) ** 2,
    }
    values, dfs = [], []
    for (ky, kx), bins in zip(crop.bins, crop.neighbors, strict=True):
        kind = "y" if kx == 0 else "x" if ky == 0 else "interior"
        around = squares[kind][:, bins[:, 0], bins[:, 1]]
        values.append(np.median(around, 1) / 0.4549 if len(bins) else np.zeros(len(logs)))
        dfs.append(len(bins) / BINS_PER_VALUE["interior" if kind == "interior" else "axis"])
    return np.stack(values, 1), np.array(dfs)
